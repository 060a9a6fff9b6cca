"""Scorer `macs`: log of the multiply-accumulates of one image."""

from __future__ import annotations

import math

from edgekd.search.scorers import Score, Scorer
from edgekd.search.spaces import Point


class Macs(Scorer):
    def score(self, point: Point) -> Score:
        return Score(math.log(point.macs))
