"""Scorer `width`: mean over blocks of log(channels), what `expressivity` is per block."""

from __future__ import annotations

from edgekd.search.scorers import Score, Scorer
from edgekd.search.spaces import Point


class Width(Scorer):
    def score(self, point: Point) -> Score:
        return Score(point.expressivity / max(point.depth, 1))
