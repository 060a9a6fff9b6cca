"""Training-free scorers: a higher score predicts a better distilled student. One scorer a file."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgekd.artifacts import ModelSpec
from edgekd.search.spaces import Point

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Score:
    """`spread` is the standard deviation over initialisations, 0 where a score has no randomness."""

    value: float
    spread: float = 0.0

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


class Scorer(Protocol):
    def __init__(self, task: ScoringTask) -> None: ...

    def score(self, point: Point) -> Score:
        """The same score for the same point, whatever was scored before it."""
