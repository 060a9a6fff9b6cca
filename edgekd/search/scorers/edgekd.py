"""Scorer `edgekd`, the default: a capacity prior, and network measures where the space's own population supports them.

Every term is ranked within the population and the logarithms of the ranks are added, as in AZ-NAS (Lee and Ham 2024,
eq. 8): a network that is among the worst by any term cannot make up for it by another.

    score = sum over terms of weight * log(rank / n),  rank n the best

The prior is `params` with weight 1, and `macs`, `expressivity` and `width` with weight 1/2: of equally many parameters,
a network had better compute more with them, and be neither shallow nor narrow. Measures on random networks rank well
in some spaces and upside down in others (jacov: rho +.74 on NAS-Bench-201, negative on plain ResNets). So each is
measured on a sample of the first points of a search, and used only if it agrees there with the prior by a Spearman
correlation of at least `GATE`. `benchmarks/search_rank.py` says which tables chose the weights and the gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgekd.search.scorers import Score, Scorer, ScoringTask
from edgekd.search.scorers.expressivity import Expressivity
from edgekd.search.scorers.jacov import Jacov
from edgekd.search.scorers.macs import Macs
from edgekd.search.scorers.params import Params
from edgekd.search.scorers.width import Width
from edgekd.search.spaces import Point

PRIOR: Mapping[str, type[Scorer]] = {"params": Params, "macs": Macs, "expressivity": Expressivity, "width": Width}
MEASURES: Mapping[str, type[Scorer]] = {"jacov": Jacov}
WEIGHTS = {"params": 1.0, "macs": 0.5, "expressivity": 0.5, "width": 0.5, "jacov": 1.0}
GATE, SAMPLE = 0.25, 24

Array = NDArray[np.float64]


class Edgekd(Scorer):
    def __init__(self, task: ScoringTask) -> None:
        super().__init__(task)
        self.terms = {name: scorer(task) for name, scorer in PRIOR.items()}

    def settle(self, founders: Sequence[Point]) -> None:
        sample = founders[:SAMPLE]
        prior = self.rank([self.score(point) for point in sample])
        for name, scorer in MEASURES.items():
            measure = scorer(replace(self.task, inits=1))
            values = [measure.score(point).value for point in sample]
            if spearman(np.nan_to_num(values, nan=-np.inf), np.array(prior)) >= GATE:
                self.terms[name] = scorer(self.task)

    def score(self, point: Point) -> Score:
        found = {name: scorer.score(point) for name, scorer in self.terms.items()}
        spread = max(score.spread for score in found.values())
        return Score(0.0, spread, {name: score.value for name, score in found.items()})

    def rank(self, scores: Sequence[Score]) -> list[float]:
        return [float(value) for value in log_ranks(scores, {name: WEIGHTS[name] for name in self.terms})]


def log_ranks(scores: Sequence[Score], weights: Mapping[str, float]) -> Array:
    """Sum of weight * log(rank / n) over the terms, [n]; equal values share a rank, NaN is the worst."""
    total = np.zeros(len(scores))
    for name, weight in weights.items():
        values = np.array([score.terms[name] for score in scores])
        total += weight * np.log(mean_ranks(np.where(np.isfinite(values), values, -np.inf)) / len(scores))
    return total


def mean_ranks(values: Array) -> Array:
    """Ranks from 1, smallest first; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Array = (last - (counts - 1) / 2)[inverse]
    return means


def spearman(a: Array, b: Array) -> float:
    """Rank correlation in [-1, 1]; 0 where either is constant."""
    a, b = mean_ranks(a), mean_ranks(b)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0
