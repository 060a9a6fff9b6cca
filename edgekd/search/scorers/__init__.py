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

    `terms` are what the value is made of, where it is made of several.
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

    def restore(self, founders: Sequence[Score]) -> None:  # noqa: B027
        """Settle as the search did whose first points have these scores."""
