"""Scorer `edgekd`, the default: a capacity prior, and network measures where the space's own points support them.

The terms of a point are placed among those of a reference population, the first points of a search, which hold its
limits; the logarithms of their places are added, as in AZ-NAS (Lee and Ham 2024). A network that is among the worst by
any term cannot make up for it by another, and beyond the reference's best a term counts no more.

    score = sum over terms of weight * log(place),  place in (0, 1], 1 the best

The prior is `params` with weight 1, and `macs`, `expressivity` and `width` with weight 1/2: of equally many parameters,
a network had better compute more with them, and be neither shallow nor narrow. Measures on random networks rank well
in some spaces, upside down in others and at random in a third kind (jacov: NAS-Bench-201, plain ResNets, transformers).
So each is measured twice on a sample of the reference, with other initial weights, and used only where the two rank the
sample alike (Spearman at least `REPEAT`) and in the prior's direction (at least `AGREE`).
"""

from __future__ import annotations

import math
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
REPEAT, AGREE, SAMPLE = 0.5, 0.25, 24

Array = NDArray[np.float64]


class Edgekd(Scorer):
    def __init__(self, task: ScoringTask) -> None:
        super().__init__(task)
        self.scorers = {name: scorer(task) for name, scorer in PRIOR.items()}
        self.reference: dict[str, Array] = {}  # a term's values on the reference points
        self._seen: dict[str, dict[str, Score]] = {}

    def settle(self, founders: Sequence[Point]) -> None:
        sample = founders[:SAMPLE]
        terms = [self._terms(point) for point in sample]
        columns = {name: np.array([term[name].value for term in terms]) for name in PRIOR}
        prior = np.sum([WEIGHTS[name] * np.log(places(values, values)) for name, values in columns.items()], axis=0)
        self._seen.clear()
        for name, scorer in MEASURES.items():
            draws = [scorer(replace(self.task, inits=1, seed=self.task.seed + draw)) for draw in (1, 2)]
            one, other = (np.nan_to_num([d.score(point).value for point in sample], nan=-np.inf) for d in draws)
            if spearman(one, other) >= REPEAT and spearman(one + other, prior) >= AGREE:
                self.scorers[name] = scorer(self.task)
        self._refer([{name: score.value for name, score in self._terms(point).items()} for point in founders])

    def restore(self, founders: Sequence[Score]) -> None:
        names = founders[0].terms
        self.scorers = {name: scorer(self.task) for name, scorer in {**PRIOR, **MEASURES}.items() if name in names}
        self._refer([score.terms for score in founders])

    def score(self, point: Point) -> Score:
        found = self._terms(point)
        value = sum(
            WEIGHTS[name] * math.log(places(self.reference[name], np.array([score.value]))[0])
            for name, score in found.items()
        )
        spread = max(score.spread for score in found.values())
        return Score(value, spread, {name: score.value for name, score in found.items()})

    def _terms(self, point: Point) -> dict[str, Score]:
        name = str(point.genotype)
        if name not in self._seen:
            self._seen[name] = {name: scorer.score(point) for name, scorer in self.scorers.items()}
        return self._seen[name]

    def _refer(self, terms: Sequence[Mapping[str, float]]) -> None:
        self.reference = {name: np.array([term[name] for term in terms]) for name in self.scorers}


def places(reference: Array, values: Array) -> Array:
    """Where `values` lie among the n of `reference`: (those below, and half of the equal, + 1/2) / (n + 1).

    What is not a number is the worst.
    """
    reference, values = (np.nan_to_num(x, nan=-np.inf, posinf=np.inf, neginf=-np.inf) for x in (reference, values))
    ordered = np.sort(reference)
    below, upto = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    found: Array = ((below + upto) / 2 + 0.5) / (len(ordered) + 1)
    return found


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
