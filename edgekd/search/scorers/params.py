"""Scorer `params`: log of the parameter count, the baseline that training-free scores rarely beat."""

from __future__ import annotations

import math

from edgekd.search.scorers import Score, ScoringTask
from edgekd.search.spaces import Point


class Params:
    def __init__(self, task: ScoringTask) -> None:
        del task

    def score(self, point: Point) -> Score:
        return Score(math.log(point.params))
