"""Scorer `depth`: log of the number of blocks, a baseline that beats most proxies on vision transformers."""

from __future__ import annotations

import math

from edgekd.search.scorers import Score, Scorer
from edgekd.search.spaces import Point


class Depth(Scorer):
    def score(self, point: Point) -> Score:
        return Score(math.log(point.depth))
