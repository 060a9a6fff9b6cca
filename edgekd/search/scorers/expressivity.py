"""Scorer `expressivity`: log of the sum over blocks of log(channels).

The entropy of a block's normalised feature spectrum is at most log(channels); their sum over blocks is the term that
AZ-NAS measures on a random network (Lee and Ham 2024, section 3.2.1). It asks for depth where `params` asks for width.
"""

from __future__ import annotations

import math

from edgekd.search.scorers import Score, Scorer
from edgekd.search.spaces import Point


class Expressivity(Scorer):
    def score(self, point: Point) -> Score:
        return Score(math.log(max(point.expressivity, 1e-9)))
