"""The only place that orders the stages: teacher, search, distill, quantize, export, profile, report.

A stage's inputs name everything its result depends on, an artifact by the fingerprint of its content; so the same
command finds every stage cached, and a changed config redoes the stages it reaches and no others.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd import processes
from edgekd.config import RunConfig
from edgekd.errors import ConfigError, InputError, RunDirectoryError
from edgekd.pipeline.dependencies import depends_on
from edgekd.pipeline.inputs import Inputs
from edgekd.pipeline.record import write_record
from edgekd.pipeline.stages import FILL
from edgekd.progress import NullProgress, Progress
from edgekd.stage import RunDirectory, StageResult, fingerprint

STAGES = ("search", "distill", "quantize", "export", "profile")
TRAINED = ("teacher", *STAGES)  # a run without a teacher trains one first


@dataclass(frozen=True)
class PlannedStage:
    name: str
    cached: bool
    estimate_s: float | None
    note: str


def compress(
    config: RunConfig,
    out: Path,
    *,
    until: str | None = None,
    start: str | None = None,
    force: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the chain in `out` and return the report.

    `until` is the last stage, `start` the first one that is checked: those before it are taken as they are. `force`
    names stages that are done again. Raises InputError before anything is written, RunError when a stage fails.

    Of several processes (see `edgekd.processes`) the first does this; the others help it train and return {}.
    """
    chain = Chain(config, out, progress or NullProgress())
    if processes.rank():
        _help(chain)
        return {}
    try:
        return _compress(chain, until, start, force)
    finally:
        if not chain.training:  # else they are in the middle of it, and end with this process
            processes.broadcast(None)


def _help(chain: Chain) -> None:
    """Train along, as often as the first process asks for it."""
    while (work := processes.broadcast(None)) is not None:
        name, out = work
        chain.fill(name, Path(out))


def _compress(chain: Chain, until: str | None, start: str | None, force: Sequence[str]) -> dict[str, Any]:
    out = chain.run.path
    names = chain.stages(until, start, force)
    if not all(stage.cached for stage in _walk(chain, names, force)):
        chain.inputs.validate()
    new = not out.is_dir() or not any(out.iterdir())
    with chain.run.locked():
        started = time.time()
        results = chain.taken_as_they_are(names)
        try:
            for name in names:
                results.append(chain.do(name, force=name in force))
                write_record(chain.inputs, results, started)
            write_record(chain.inputs, [*results, *chain.still_valid(names)], started)
        except InputError:  # the input cannot be used: leave nothing half-written
            for partial in out.glob(".*.partial"):
                shutil.rmtree(partial)
            if new and not results:
                shutil.rmtree(out)
            raise
        from edgekd.report import build_report

        return build_report(out)


def run_stage(name: str, run: Path, *, force: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Stage `name` of an existing run, by the config in its run.json."""
    return compress(run_config(run), run, until=name, force=[name] if force else [], progress=progress)


def explain(run: Path, genotype: str) -> dict[str, Any]:
    """What the search of a finished run makes of an architecture, by the config in its run.json."""
    from edgekd.search.explain import explain

    inputs = Inputs(run_config(run), run)
    if RunDirectory(run).record("search") is None:
        raise RunDirectoryError(f"{run} holds no search", f"Run edgekd search {run} first.")
    return explain(
        run / "search",
        genotype,
        teacher=inputs.teacher,
        data=inputs.data,
        device=inputs.device,
        config=inputs.config.search,
        seed=inputs.config.seed,
    )


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """The stages of a run, in their order."""
    return TRAINED if config.teacher.source is None else STAGES


def run_config(run: Path) -> RunConfig:
    """The config a run directory was made with."""
    file = run / "run.json"
    if not file.is_file():
        raise RunDirectoryError(f"{run} holds no run.json", "Name a directory that `edgekd compress --out` made.")
    return RunConfig.model_validate(json.loads(file.read_text())["config"])


def plan(
    config: RunConfig, out: Path, until: str | None = None, start: str | None = None, force: Sequence[str] = ()
) -> list[PlannedStage]:
    """What `compress` would do; writes nothing. Estimates come from one timed training step on this machine."""
    chain = Chain(config, out, NullProgress())
    stages = list(_walk(chain, chain.stages(until, start, force), force))
    if all(stage.cached for stage in stages):
        return stages
    chain.inputs.validate()
    from edgekd.pipeline.estimate import estimate

    seconds = estimate(chain.inputs)
    return [stage if stage.cached else replace(stage, estimate_s=seconds[stage.name]) for stage in stages]


def _walk(chain: Chain, names: Sequence[str], force: Sequence[str]) -> list[PlannedStage]:
    """Cached or not, stage by stage; what follows a stage that has to run is not known before it has."""
    stages: list[PlannedStage] = []
    for name in names:
        known = all(stage.cached for stage in stages)
        cached = known and name not in force and chain.run.cached(name, chain.fingerprint(name))
        resumed = known and not cached and chain.run.partial(name, chain.fingerprint(name)).exists()
        note = "goes on where it stopped" if resumed else "" if known else "cached if the stage before gives the same"
        stages.append(PlannedStage(name, cached, 0.0 if cached else None, note))
    return stages


def status(run: Path) -> list[dict[str, Any]]:
    """One row a stage: done, partial or missing, and its seconds."""
    config = run_config(run)
    rows = []
    for name in stage_names(config):
        record = RunDirectory(run).record(name)
        partial = any(run.glob(f".{name}-*.partial"))
        state = "partial" if partial else "done" if record else "missing"
        rows.append({"stage": name, "state": state, "seconds": record["seconds"] if record else None})
    return rows


class Chain:
    """The stages of one run, in their order."""

    def __init__(self, config: RunConfig, out: Path, progress: Progress) -> None:
        self.inputs, self.progress = Inputs(config, out), progress
        self.run, self.all_stages = RunDirectory(out), stage_names(config)
        self.training = False  # with the other processes

    def stages(self, until: str | None, start: str | None, force: Sequence[str]) -> list[str]:
        """The stages to go through. Raises ConfigError for a name that is none of them."""
        names = list(self.all_stages)
        for option, value in [("--until", until), ("--from", start), *(("--force", name) for name in force)]:
            if value is not None and value not in names:
                raise ConfigError(f"{option}: this run has no stage {value!r}", f"Its stages: {', '.join(names)}.")
        first, last = names.index(start) if start else 0, names.index(until) if until else len(names) - 1
        if first > last:
            raise ConfigError(f"--from {start} comes after --until {until}", f"Their order is {', '.join(names)}.")
        for name in names[:first]:
            if self.run.record(name) is None:
                raise RunDirectoryError(f"--from {start}: {self.run.path} has no {name} yet", f"Use --from {name}.")
        return names[first : last + 1]

    def fingerprint(self, name: str) -> str:
        return fingerprint({"stage": name, "inputs": depends_on(self.inputs, name)})

    def do(self, name: str, *, force: bool) -> StageResult:
        def fill(out: Path) -> None:
            if self.training:
                processes.broadcast((name, str(out)))
            self.fill(name, out)

        self.training = processes.count() > 1 and name in ("teacher", "search", "distill")
        result = self.run.run(name, depends_on(self.inputs, name), fill, force=force)
        self.training = False
        return result

    def fill(self, name: str, out: Path) -> None:
        FILL[name](self.inputs, out, self.progress)

    def taken_as_they_are(self, names: Sequence[str]) -> list[StageResult]:
        """The stages before a `--from`."""
        return [self._there(name) for name in self.all_stages[: self.all_stages.index(names[0])]]

    def still_valid(self, names: Sequence[str]) -> list[StageResult]:
        """The stages behind an `--until` whose inputs are still the same."""
        results: list[StageResult] = []
        for name in self.all_stages[self.all_stages.index(names[-1]) + 1 :]:
            if not self.run.cached(name, self.fingerprint(name)):
                break
            results.append(self._there(name))
        return results

    def _there(self, name: str) -> StageResult:
        record = self.run.record(name)
        assert record is not None
        return StageResult(name, self.run.path / name, record["seconds"], True, record["fingerprint"])
