"""Latency of exported graphs: own process, pinned, interleaved, with every sample and the conditions kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.artifacts import LatencyReport, OnnxModel
from edgekd.catalog import BACKENDS, find
from edgekd.errors import ConfigError
from edgekd.profile import blocks, conditions
from edgekd.profile.device import Device
from edgekd.profile.devices import device_identity
from edgekd.profile.hosts import Worker, reach
from edgekd.profile.samples import read_samples, write_samples
from edgekd.progress import NullProgress, Progress, Task
from edgekd.stage import fingerprint, write_json

if TYPE_CHECKING:
    from edgekd.config import ProfileConfig  # the measuring process has no use for pydantic
    from edgekd.profile.accuracy import LabelledImages
    from edgekd.profile.scenario import Scenario

ROUND = 20  # runs of one model before the next has its turn
REWARM = 2  # untimed runs at the start of a turn: the models evict each other from the caches
STABLE = 0.02  # warm-up ends when the medians of two turns in a row differ by no more than this
MOST_WARMUP = 20  # turns of it, or WARMUP_S seconds, whichever comes first: a machine may never be stable
WARMUP_S = 10.0
MOST_RUNS = 10_000_000  # samples of one model, which are kept in memory
SCENARIO_TURN_S = 1.0  # MLPerf asks without pauses: turns as long as a progress bar allows
LAYER_RUNS = 50


@dataclass(frozen=True)
class Options:
    """How to measure: at least `runs` calls of each model and, on average over the models, `seconds` of them.

    `warmup` is the least number of calls before; `threads` are pinned to as many cores; `cuda_graph` replays a
    recorded graph on a GPU. `per_layer` profiles the layers too, apart from the timed calls. A `scenario` brings least
    numbers of its own.
    """

    runs: int = 200
    warmup: int = 50
    seconds: float = 0.0
    threads: int = 1
    cuda_graph: bool = False
    per_layer: bool = False
    scenario: Scenario | None = None


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
    seconds: float = 0.0,
    progress: Progress | None = None,
    state: Path | None = None,
) -> list[LatencyReport]:
    """Every model at every batch size, as `measure_with` does by the plainest options."""
    options = Options(runs=runs, warmup=warmup, seconds=seconds, threads=threads)
    return measure_with(options, models, device, batches=batches, progress=progress, state=state)


def measure_with(
    options: Options,
    models: Sequence[OnnxModel],
    device: Device,
    *,
    batches: Sequence[int] = (1,),
    images: LabelledImages | None = None,
    progress: Progress | None = None,
    state: Path | None = None,
) -> list[LatencyReport]:
    """Every model at every batch size, batch by batch in one fresh pinned process.

    The models take turns of 20 runs, so a noisy neighbour slows all of them alike and their ratios hold. With
    `images` the sessions of the largest batch also say their top-1. With `state`, a directory, a finished batch is
    kept in `batch-N.npz` and a killed run goes on after it. Raises BackendError when the runtime refuses a graph, runs
    it elsewhere, or its process dies; TargetError when `device` cannot be measured from here.
    """
    host = reach(device)
    if options.per_layer and device.host != "local":
        raise ConfigError(
            "--per-layer: over SSH there are no times of layers", "Leave it out, or run it on the device."
        )
    if options.cuda_graph and not find(BACKENDS, "device.backend", device.backend).gpu:
        raise ConfigError(f"--cuda-graph: {device.backend} does not run on a GPU", "Leave it out.")
    reports: list[LatencyReport] = []
    with host, (progress or NullProgress()).task("profile", total=100 * len(batches)) as task:
        for batch in batches:
            file, key = (None, "") if state is None else (state / f"batch-{batch}.npz", _key(options, models, device))
            finished = _finished(file, key)
            if finished is None:
                with host.worker(device, options.threads) as worker:
                    judge = images if batch == max(batches) else None
                    finished = _Batch(worker, models, batch, options, judge).measure(task)
                if file is not None:
                    write_samples(file, finished, key)
            else:
                task.advance(100)
            reports += finished
    return reports


def _key(options: Options, models: Sequence[OnnxModel], device: Device) -> str:
    """What a kept batch must have been measured with."""
    known = [options.runs, options.warmup, options.seconds, options.threads, options.cuda_graph, options.per_layer]
    protocol = {
        "models": [model.fingerprint() for model in models],
        "device": device_identity(device),
        "options": [*known, ROUND, REWARM],
    }
    return fingerprint(protocol)


def profile(
    out: Path, *, models: list[OnnxModel], device: Device, config: ProfileConfig, progress: Progress
) -> list[LatencyReport]:
    """The stage: `out/latency.json`, a list of `LatencyReport.summary()`, and samples in `out/samples/batch-N.npz`."""
    options = Options(
        runs=config.runs,
        warmup=config.warmup,
        seconds=config.seconds,
        threads=config.threads,
        per_layer=config.per_layer,
    )
    state = out / "samples"
    reports = measure_with(options, models, device, batches=config.batches, progress=progress, state=state)
    write_json(out / "latency.json", [report.summary() for report in reports])
    return reports


def _finished(file: Path | None, key: str) -> list[LatencyReport] | None:
    if file is None or not file.is_file():
        return None
    reports, made = read_samples(file)
    return reports if made == key else None


class _Batch:
    """Models side by side at one batch size, in one measuring process."""

    def __init__(
        self,
        worker: Worker,
        models: Sequence[OnnxModel],
        batch: int,
        options: Options,
        images: LabelledImages | None,
    ) -> None:
        self.worker, self.models, self.batch, self.options, self.images = worker, models, batch, options, images
        self.turn = find(BACKENDS, "device.backend", worker.device.backend).turn or worker.turn or ROUND
        self.samples: list[list[int]] = [[] for _ in models]
        self.phases: list[dict[str, list[int]]] = [{} for _ in models]
        self.preempted = [0] * len(models)

    def measure(self, task: Task) -> list[LatencyReport]:
        started, asked = time.perf_counter(), time.process_time()
        before = self.worker.snapshot()
        opened = [self._open(i) for i in range(len(self.models))]
        if self.images is not None:
            for i, model in enumerate(self.models):  # before anything takes long
                self.images.check(self.worker, str(i), model)
        warmed = [self._warm_up(i) for i in range(len(self.models))]
        self.worker.watch()
        at_start = self.worker.snapshot()
        self._time(task)
        after = self.worker.snapshot()
        seen = self.worker.watched()
        noted = seen.pop("warnings", [])
        disturbed = conditions.others(before, after, time.process_time() - asked)
        layers = [self._layers(i) for i in range(len(self.models))]
        counted = [self._count(i) for i in range(len(self.models))]
        energies = [self.worker.energy(str(i), self.batch) for i in range(len(self.models))]
        shared = {
            **self.worker.conditions,
            "warmup": self.options.warmup,
            "least_seconds": self.options.seconds,
            "turns": {"runs": self.turn, "rewarm": REWARM, "models": [model.artifact for model in self.models]},
            "load_before": before["load"],
            "load_after": after["load"],
            "before": _state(at_start),
            "after": _state(after),
            "power_w": _power(at_start, after),
            **seen,
            "busy_cores": None if disturbed is None else round(disturbed[0], 2),
            "wall_s": round(time.perf_counter() - started, 3),
            "runtime_s": round(self.worker.snapshot()["runtime_s"], 3),
        }
        busy_before = self.worker.conditions["busy_cores_before"]
        disturbances = conditions.disturbances(disturbed, busy_before, before["load"], self.worker.spare)
        reports = []
        for i, model in enumerate(self.models):
            provider, settings = opened[i]
            mean = statistics.fmean(self.samples[i])
            own = {
                "provider": provider,
                **settings,
                **warmed[i],
                **energies[i],
                "cov_percent": round(100 * statistics.pstdev(self.samples[i]) / mean, 2),
                "preempted": self.preempted[i],
                "warnings": [
                    *noted,
                    *disturbances,
                    *conditions.unsteadiness(self.samples[i], self.preempted[i]),
                    *(
                        []
                        if warmed[i]["warmup_stable"]
                        else [f"not stable after {warmed[i]['warmup_runs']} warm-up runs"]
                    ),
                ],
            }
            samples, scenario = tuple(self.samples[i]), self.options.scenario
            reports.append(
                LatencyReport(
                    artifact=model.artifact,
                    target=self.worker.device.name,
                    backend=self.worker.device.backend,
                    precision=model.precision,
                    batch=self.batch,
                    samples_ns=samples,
                    conditions={**shared, **own},
                    phases_ns={name: tuple(values) for name, values in self.phases[i].items()},
                    layers=tuple(layers[i]),
                    blocks=tuple(blocks.totals(layers[i])),
                    accuracy=counted[i],
                    scenario=None if scenario is None else scenario.count(samples, self.batch),
                )
            )
        return reports

    def _open(self, i: int) -> tuple[str, dict[str, Any]]:
        return self.worker.add(str(i), self.models[i], self.batch, self.options.cuda_graph)

    def _warm_up(self, i: int) -> dict[str, Any]:
        """Turns until the medians of two in a row agree, at least as many runs as are asked for."""
        medians: list[float] = []
        started = time.monotonic()
        while True:
            medians.append(statistics.median(self.worker.time(str(i), self.batch, self.turn, 1).ns))
            runs = len(medians) * self.turn
            stable = len(medians) > 1 and abs(medians[-1] - medians[-2]) <= STABLE * min(medians[-2:])
            late = len(medians) >= MOST_WARMUP or time.monotonic() - started > WARMUP_S
            if runs >= self.options.warmup and (stable or late):
                break
        if self.options.scenario is not None:
            self.turn = max(self.turn, int(SCENARIO_TURN_S * 1e9 / medians[-1]))
        return {"warmup_runs": runs, "warmup_stable": stable}

    def _time(self, task: Task) -> None:
        """Turns until count and duration are reached; every model has as many as the others."""
        runs, seconds, scenario = self.options.runs, self.options.seconds, self.options.scenario
        if scenario is not None:
            runs = scenario.calls(self.batch)
        shown = 0.0
        while True:
            done = len(self.samples[0])
            spent = sum(map(sum, self.samples)) / 1e9 / len(self.models)
            share = min(1.0, done / runs, spent / seconds if seconds else 1.0) if done < MOST_RUNS else 1.0
            if done:
                task.advance(100 * (share - shown))
                shown = share
            if share >= 1.0:
                break
            n = self.turn if seconds else min(self.turn, runs - done)
            for i in range(len(self.models)):
                timed = self.worker.time(str(i), self.batch, n, REWARM)
                self.samples[i] += timed.ns
                self.preempted[i] += timed.preempted
                for name, values in timed.phases.items():
                    self.phases[i].setdefault(name, []).extend(values)

    def _layers(self, i: int) -> list[dict[str, Any]]:
        if not self.options.per_layer:
            return []
        return blocks.place(self.worker.layers(str(i), self.batch, LAYER_RUNS), self.models[i])

    def _count(self, i: int) -> dict[str, Any] | None:
        return None if self.images is None else self.images.measure(self.worker, str(i), self.models[i], self.batch)


def _state(snapshot: conditions.Snapshot) -> dict[str, Any]:
    """What a reader wants of a snapshot."""
    return {key: snapshot[key] for key in ("clock_mhz", "temperature_c", "gpu")}


def _power(before: conditions.Snapshot, after: conditions.Snapshot) -> float | None:
    """Mean power of the GPU in W between two snapshots, by its own meter of energy; None where it has none."""
    first, last = ((snapshot["gpu"] or {}).get("energy_j") for snapshot in (before, after))
    if first is None or last is None:
        return None
    return float((last - first) / (after["at"] - before["at"]))
