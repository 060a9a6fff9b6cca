"""Scorer `params`: log of the parameter count, the baseline that training-free scores rarely beat."""

from __future__ import annotations

import math

from edgekd.search.scorers import Score, Scorer
from edgekd.search.spaces import Point


class Params(Scorer):
    def score(self, point: Point) -> Score:
        return Score(math.log(point.params))
