"""Search: from a teacher, a target and limits to a student's architecture, without training anything.

student = search(out, teacher=spec, data=data, device=device, config=SearchConfig(), latency="6x", seed=0, progress=p)
"""

from __future__ import annotations

import random
import shutil
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import processes
from edgekd.artifacts import ModelSpec
from edgekd.catalog import SPACES, find
from edgekd.config import SearchConfig, parse_latency
from edgekd.errors import TargetError
from edgekd.search._judge import ScoringJudge
from edgekd.search._ranking import Candidate, pareto, ranks, row
from edgekd.search._scores import ScoreBook
from edgekd.search._statistics import kendall_tau
from edgekd.search._task import make_scorer, normalisation
from edgekd.search.calibration import calibrate, choose
from edgekd.search.evolution import evolve
from edgekd.search.latency import Latency, MeasuredLatency
from edgekd.search.limits import Limits, format_ms
from edgekd.search.scorers import Score
from edgekd.search.spaces import Genotype, Point, Space
from edgekd.stage import fingerprint, write_json

if TYPE_CHECKING:
    from edgekd.data import Dataset
    from edgekd.profile.device import Device
    from edgekd.progress import Progress

__all__ = ["Limits", "search"]

Train = Callable[[Path, ModelSpec], float]  # distil a student for a short time in a directory: validation top-1

SHOWN = 20  # rows of the ranking
BASELINES = ("resnet8", "resnet20", "resnet56")


def search(
    out: Path,
    *,
    teacher: ModelSpec,
    data: Dataset,
    device: Device,
    config: SearchConfig,
    latency: str | None,
    seed: int,
    progress: Progress,
    costs: Latency | None = None,
    train: Train | None = None,
) -> ModelSpec:
    """The best-scored student that holds the limits on `device`; goes on from a kill.

    Writes `out/search.json`, the choice and the ranking, and `out/scores.json`, every candidate's terms.

    Every individual holds max_params, max_macs and, by prediction, `latency` (`2ms`, or `6x` for a sixth of the FP32
    teacher). The `finalists` best are then measured as whole INT8 graphs, and the first that holds the limit is chosen;
    if none does, the search goes down the ranking. With `config.student` that point is taken and held to the limits.
    With `config.calibrate` so many candidates are distilled by `train` and correct the ranking.
    `costs` replaces the target's own latency table. Raises ConfigError, and TargetError when no student can hold a
    limit, naming the nearest.
    """
    space: Space = find(SPACES, "search.space", config.space).load()(data.num_classes, data.input_shape, device)
    named = space.parse(config.student) if config.student is not None else None
    with ExitStack() as stack:
        costs = costs or stack.enter_context(MeasuredLatency(space, device))
        teacher_ms = None
        limit_ms = None
        if latency is not None:
            unit, value = parse_latency(latency)
            teacher_ms = costs.teacher(teacher) if unit == "x" else None
            limit_ms = value if teacher_ms is None else teacher_ms / value
        limits = Limits(config.max_params, config.max_macs, limit_ms)
        run = _Search(out, space, teacher, data, device, config, limits, costs, seed, train)
        record = run.take(named) if named is not None else run.evolve(progress)
        record |= {"latency_limit_ms": limit_ms, "teacher_latency_ms": teacher_ms}
        if processes.rank() == 0:
            write_json(out / "search.json", record)
            shutil.rmtree(out / "calibration", ignore_errors=True)
        processes.wait()
    return ModelSpec.from_json(record["chosen"]["spec"])


class _Search:
    """One search: the pieces it is made of, and the record it ends in."""

    def __init__(
        self,
        out: Path,
        space: Space,
        teacher: ModelSpec,
        data: Dataset,
        device: Device,
        config: SearchConfig,
        limits: Limits,
        costs: Latency,
        seed: int,
        train: Train | None,
    ) -> None:
        self.out, self.train = out, train
        self.space, self.teacher, self.data, self.device = space, teacher, data, device
        self.config, self.limits, self.costs, self.seed = config, limits, costs, seed
        # The limits too: they decide the first points, among which a score may place a term.
        inputs = [config.model_dump(mode="json"), asdict(limits), seed, data.digest, teacher.fingerprint()]
        self.book = ScoreBook(out / "scores.json", fingerprint(inputs))

    def take(self, genotype: Genotype) -> dict[str, Any]:
        """The record of a student that was named instead of searched. Raises TargetError when it breaks a limit."""
        point = self.space.point(genotype)
        chosen = Candidate(point, Score(0.0), self.costs.measure(genotype), measured=True)
        broken = self.limits.broken(point.params, point.macs, chosen.latency_ms)
        if broken is not None:
            raise TargetError(
                f"search.student {self.config.student!r} breaks {broken}",
                "Name a smaller student, raise the limit, or drop search.student to search for one.",
            )
        rows = {**row(chosen, self._spec(chosen.point)), "score": None, "spread": None}
        return self._record(scorer=None, scored=0, chosen=rows, ranking=[rows], baselines=[])

    def evolve(self, progress: Progress) -> dict[str, Any]:
        config, space = self.config, self.space
        self.limits.require_feasible(space, self.costs, self.device.name)
        names = [name for name in BASELINES if name in space.named]
        with progress.task("search", config.evaluations) as task:
            make = partial(make_scorer, self.teacher, self.data, config, self.seed)
            judge = ScoringJudge(self.book, space, make, task.advance)
            try:
                individuals = evolve(
                    space,
                    judge,
                    lambda genotype: self.limits.admit(space, genotype, self.costs),
                    evaluations=config.evaluations,
                    population=config.population,
                    tournament=config.tournament,
                    generator=random.Random(self.seed),
                )
                named = [space.named[name] for name in names]
                judge.score(named)
            finally:
                self.book.save()
        everyone = [*individuals, *named]
        scores = [judge.value(genotype) for genotype in everyone]
        calibration = None
        if config.calibrate:
            calibration = self._calibrate(everyone, scores, len(individuals))
            scores = calibration.pop("figures")
        candidates = [self._candidate(g, s) for g, s in zip(everyone, scores, strict=True)]
        # Equal scores: the cheaper one first.
        ranking = sorted(
            candidates[: len(individuals)],
            key=lambda candidate: (-candidate.score.value, candidate.latency_ms, candidate.point.params),
        )
        ranking, chosen, ratios = self._choose(ranking)
        rows = [{**row(candidate, self._spec(candidate.point)), "rank": i} for i, candidate in enumerate(ranking, 1)]
        for key in ("params", "macs"):
            for entry, place in zip(rows, ranks([entry[key] for entry in rows]), strict=True):
                entry[f"rank_{key}"] = place
        largest = max(ranking, key=lambda candidate: candidate.point.params)
        return self._record(
            scorer=config.scorer,
            calibration=calibration,
            scored=len(ranking),
            chosen=rows[chosen],
            ranking=rows[:SHOWN],
            pareto=[rows[i] for i in pareto(ranking)],
            baselines=[
                *(self._baseline(n, c) for n, c in zip(names, candidates[len(individuals) :], strict=True)),
                self._baseline("largest legal", largest),
                self._baseline("random, equally fast", self._random(ranking, ranking[chosen].latency_ms)),
            ],
            tau_params=kendall_tau([c.score.value for c in ranking], [c.point.params for c in ranking]),
            latency_model={
                **self.costs.model(),
                "finalists": len(ratios),
                "finalists_error": statistics.median(abs(1 / ratio - 1) for ratio in ratios),
            },
        )

    def _calibrate(self, genotypes: list[Genotype], scores: list[float], legal: int) -> dict[str, Any]:
        """Distil a few of the first `legal` genotypes shortly, and rank all of them by what came out."""
        assert self.train is not None, "search.calibrate needs a way to train"
        points = [self.space.point(genotype) for genotype in genotypes]
        measured = choose(scores[:legal], self.config.calibrate)
        accuracy = [self.train(self.out / "calibration" / f"{i}", self._spec(points[i])) for i in measured]
        found = calibrate(points, scores, measured, accuracy)
        trained = [{"name": str(genotypes[i]), "val_top1": a} for i, a in zip(measured, accuracy, strict=True)]
        return {**asdict(found), "trained": trained}

    def _random(self, ranking: list[Candidate], latency_ms: float) -> Candidate:
        """Any of the candidates within a tenth of a latency, or the nearest."""
        near = sorted(ranking, key=lambda candidate: abs(candidate.latency_ms - latency_ms))
        close = [c for c in near if abs(c.latency_ms - latency_ms) <= 0.1 * latency_ms]
        return random.Random(self.seed).choice(close or near[:1])

    def _choose(self, ranking: list[Candidate]) -> tuple[list[Candidate], int, list[float]]:
        """Measure the finalists: the ranking, the place of the first that holds the limit, and measured / predicted.

        When none does, go on down the ranking, skipping what the ratio of measured to predicted says is too slow.
        """
        ranking, limit = list(ranking), self.limits.latency_ms
        ratios: list[float] = []
        holds: int | None = None
        for i, candidate in enumerate(ranking):
            if i >= self.config.finalists:
                if holds is not None:
                    break
                if limit is not None and candidate.latency_ms * min(ratios) > limit:
                    continue
            measured = self.costs.measure(candidate.point.genotype)
            ratios.append(measured / candidate.latency_ms)
            ranking[i] = candidate.timed(measured)
            if holds is None and (limit is None or measured <= limit):
                holds = i
        if holds is None:
            assert limit is not None
            nearest = min((candidate for candidate in ranking if candidate.measured), key=lambda c: c.latency_ms)
            takes = format_ms(nearest.latency_ms)
            raise TargetError(
                f"latency {format_ms(limit)}: of {len(ranking)} candidates predicted to hold it, {len(ratios)} were "
                f"measured and none does; the nearest ({nearest.point.genotype}) takes {takes} on {self.device.name}",
                f"Allow {format_ms(nearest.latency_ms * 1.02)} or more.",
            )
        return ranking, holds, ratios

    def _candidate(self, genotype: Genotype, value: float) -> Candidate:
        score = replace(self.book[genotype], value=value)
        return Candidate(self.space.point(genotype), score, self.costs.predict(genotype))

    def _spec(self, point: Point) -> ModelSpec:
        mean, std = normalisation(self.teacher, self.data)
        return replace(point.spec, mean=mean, std=std)

    def _baseline(self, name: str, candidate: Candidate) -> dict[str, Any]:
        point = candidate.point
        broken = self.limits.broken(point.params, point.macs, candidate.latency_ms)
        return {**row(candidate, self._spec(candidate.point)), "name": name, "legal": broken is None, "breaks": broken}

    def _record(self, **entries: Any) -> dict[str, Any]:
        return {"space": self.space.name, "seconds": self.book.seconds, **entries}
