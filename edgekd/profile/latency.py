"""Latency of exported graphs: own process, pinned, interleaved, with every sample and the conditions kept."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.artifacts import LatencyReport, OnnxModel
from edgekd.profile.devices import Device, device_identity
from edgekd.profile.hosts import Worker, reach
from edgekd.progress import NullProgress, Progress
from edgekd.stage import fingerprint, write_json

if TYPE_CHECKING:
    from edgekd.config import ProfileConfig  # the measuring process has no use for pydantic

ROUND = 20  # runs of one model before the next has its turn
REWARM = 2  # untimed runs at the start of a turn: the models evict each other from the caches


def measure(
    model: OnnxModel, device: Device, *, batch: int = 1, runs: int = 200, warmup: int = 50, threads: int = 1
) -> LatencyReport:
    """One graph at one batch size; see `measure_all`, which compares several more fairly."""
    return measure_all([model], device, batches=[batch], runs=runs, warmup=warmup, threads=threads)[0]


def measure_all(
    models: Sequence[OnnxModel],
    device: Device,
    *,
    batches: Sequence[int] = (1,),
    runs: int = 200,
    warmup: int = 50,
    threads: int = 1,
    progress: Progress | None = None,
    state: Path | None = None,
) -> list[LatencyReport]:
    """Every model at every batch size, `runs` samples each, batch by batch in one fresh pinned process.

    The models take turns of 20 runs, so a noisy neighbour slows all of them alike and their ratios hold. With
    `state`, a directory, a finished batch is kept in `batch-N.json` and a killed run goes on after it. Raises
    BackendError when the runtime refuses a graph, runs it elsewhere, or its process dies; TargetError when `device`
    cannot be measured from here.
    """
    host = reach(device)
    protocol = {
        "models": [model.fingerprint() for model in models],
        "device": device_identity(device),
        "options": [runs, warmup, threads, ROUND, REWARM],
    }
    reports: list[LatencyReport] = []
    turns = -(-runs // ROUND)
    with host, (progress or NullProgress()).task("profile", total=len(batches) * turns) as task:
        for batch in batches:
            key = fingerprint({**protocol, "batch": batch})
            file = state / f"batch-{batch}.json" if state is not None else None
            finished = _finished(file, key)
            if finished is None:
                with host.worker(device, threads) as worker:
                    finished = _measure_batch(worker, device, models, batch, runs, warmup, task)
                if file is not None:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_json(file, {"key": key, "reports": [report.to_json() for report in finished]})
            else:
                task.advance(turns)
            reports += finished
    return reports


def profile(
    out: Path, *, models: list[OnnxModel], device: Device, config: ProfileConfig, progress: Progress
) -> list[LatencyReport]:
    """The stage: `out/latency.json`, a list of `LatencyReport.summary()`, and samples in `out/samples/batch-N.json`."""
    reports = measure_all(
        models,
        device,
        batches=config.batches,
        runs=config.runs,
        warmup=config.warmup,
        threads=config.threads,
        progress=progress,
        state=out / "samples",
    )
    write_json(out / "latency.json", [report.summary() for report in reports])
    return reports


def _finished(file: Path | None, key: str) -> list[LatencyReport] | None:
    if file is None or not file.is_file():
        return None
    record = json.loads(file.read_text())
    return [LatencyReport.from_json(report) for report in record["reports"]] if record["key"] == key else None


def _measure_batch(
    worker: Worker, device: Device, models: Sequence[OnnxModel], batch: int, runs: int, warmup: int, task: Any
) -> list[LatencyReport]:
    before = worker.load()
    added = [worker.add(str(i), model, batch) for i, model in enumerate(models)]
    samples: list[list[int]] = [[] for _ in models]
    preempted = [0] * len(models)
    for i in range(len(models)):
        for done in range(0, warmup, ROUND):  # in turns as well: no single request takes long
            worker.time(str(i), batch, 0, min(ROUND, warmup - done))
    worker.watch()
    for done in range(0, runs, ROUND):
        for i in range(len(models)):
            timed, times = worker.time(str(i), batch, min(ROUND, runs - done), REWARM)
            samples[i] += timed
            preempted[i] += times
        task.advance()
    seen = worker.watched()
    warnings = seen.pop("warnings")
    conditions = {
        **worker.conditions,
        "warmup": warmup,
        "turns": {"runs": ROUND, "rewarm": REWARM, "models": [model.artifact for model in models]},
        "load_before": before,
        "load_after": worker.load(),
        **seen,
    }
    reports = []
    for i, model in enumerate(models):
        steadiness = _steadiness(samples[i], preempted[i], before[0], worker.spare)
        own = {**added[i], **worker.energy(str(i), batch), **steadiness}
        own["warnings"] = [*warnings, *steadiness["warnings"]]
        report = LatencyReport(
            artifact=model.artifact,
            target=device.name,
            backend=device.backend,
            precision=model.precision,
            batch=batch,
            samples_ns=tuple(samples[i]),
            conditions={**conditions, **own},
        )
        reports.append(report)
    return reports


def _steadiness(samples: list[int], preempted: int, load: float, spare: int) -> dict[str, Any]:
    """Coefficient of variation in percent, preemptions, and the warnings a reader of the figures needs."""
    cov = 100 * statistics.pstdev(samples) / statistics.fmean(samples)
    warnings = []
    if load > spare + 0.5:
        warnings.append(f"the machine was busy before: load average {load:.2f} with {spare} cores to spare")
    if preempted > 0.05 * len(samples):
        warnings.append(
            f"other processes took the core {preempted} times in {len(samples)} runs; longer runs lost more,"
            " so ratios between models are off"
        )
    median, slow = statistics.median(samples), statistics.quantiles(samples, n=10)[-1]
    if slow > 1.5 * median:
        warnings.append(f"unsteady: one run in ten took more than {slow / median:.1f} times the median")
    return {"cov_percent": round(cov, 2), "preempted": preempted, "warnings": warnings}
