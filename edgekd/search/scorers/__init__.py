"""Training-free scorers: a higher score predicts a better distilled student. One scorer a file."""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgekd.artifacts import ModelSpec
from edgekd.search.spaces import Point

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Score:
    """`spread` is the standard deviation over initialisations, 0 where a score has no randomness.

    A scorer that ranks within a population gives its `terms`; `value` is then what `Scorer.rank` makes of them.
    """

    value: float
    spread: float = 0.0
    terms: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def average(cls, values: Sequence[float]) -> Score:
        """Of one value an initialisation."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


@dataclass(frozen=True)
class ScoringTask:
    """What every candidate is scored on: normalised images float32 [B, C, H, W] and labels int64 [B]."""

    teacher: ModelSpec
    images: Tensor
    labels: Tensor
    seed: int
    inits: int


class Scorer(ABC):
    def __init__(self, task: ScoringTask) -> None:
        self.task = task

    @abstractmethod
    def score(self, point: Point) -> Score:
        """The same score for the same point, whatever was scored before it."""

    def settle(self, founders: Sequence[Point]) -> None:  # noqa: B027
        """Called once, before any score, with the first points of a search: a sample of what will be scored."""

    def restore(self, score: Score) -> None:  # noqa: B027
        """Settle as the search did that gave this score."""

    def rank(self, scores: Sequence[Score]) -> list[float]:
        """A figure for each of a population, higher is better; by default each score's own value."""
        return [score.value for score in scores]
