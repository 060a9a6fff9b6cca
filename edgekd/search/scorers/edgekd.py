"""Scorer `edgekd`, the default: a capacity prior, and network measures where the space's own points support them.

The terms of a point are placed among those of a reference population, the first points of a search, which hold its
limits; the logarithms of their places are added, as in AZ-NAS (Lee and Ham 2024). A network that is among the worst by
any term cannot make up for it by another, and beyond the reference's best a term counts no more.

    score = sum over terms of weight * log(place),  place in (0, 1], 1 the best

The prior is `params` with weight 1, `expressivity` with 1/2, `macs` and `width` with 1/4: of equally many parameters, a
network had better be neither shallow nor narrow, and compute more with them. These weights are what published tables
choose when the one that is reported is left out (benchmarks/search_constants.py). Measures on random networks rank well
in some spaces, upside down in others and at random in a third kind (jacov: NAS-Bench-201, plain ResNets, transformers).
So each is measured twice on a sample of the reference, with other initial weights, and used only where the two rank the
sample alike (Spearman at least `REPEAT`, the reliability that tests are usually asked for) and in the prior's direction
(at least `AGREE`). Agreement alone does not tell: jacov agrees with the prior by .4 on NAS-Bench-201, where it helps,
and on PiT, where it harms, and repeats itself by .93 on the one and .6 on the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from edgekd.search._statistics import Array, spearman
from edgekd.search.scorers import Score, Scorer, ScoringTask
from edgekd.search.scorers.expressivity import Expressivity
from edgekd.search.scorers.jacov import Jacov
from edgekd.search.scorers.macs import Macs
from edgekd.search.scorers.params import Params
from edgekd.search.scorers.width import Width
from edgekd.search.spaces import Point

PRIOR: Mapping[str, type[Scorer]] = {"params": Params, "macs": Macs, "expressivity": Expressivity, "width": Width}
MEASURES: Mapping[str, type[Scorer]] = {"jacov": Jacov}
WEIGHTS = {"params": 1.0, "macs": 0.25, "expressivity": 0.5, "width": 0.25, "jacov": 1.0}
REPEAT, AGREE, SAMPLE = 0.8, 0.25, 24


class Edgekd(Scorer):
    def __init__(self, task: ScoringTask) -> None:
        super().__init__(task)
        self.scorers = {name: scorer(task) for name, scorer in PRIOR.items()}
        self.reference: dict[str, Array] = {}  # a term's values on the reference points, in order
        self._founders: dict[str, dict[str, Score]] = {}  # their terms, so that none is measured again

    def settle(self, founders: Sequence[Point]) -> None:
        sample = founders[:SAMPLE]
        columns = [
            (WEIGHTS[name], [scorer.score(point).value for point in sample]) for name, scorer in self.scorers.items()
        ]
        prior = np.sum([weight * np.log(places(in_order(values), values)) for weight, values in columns], axis=0)
        for name, scorer in MEASURES.items():
            draws = [scorer(replace(self.task, inits=1, seed=self.task.seed + draw)) for draw in (1, 2)]
            one, other = (np.nan_to_num([d.score(point).value for point in sample], nan=-np.inf) for d in draws)
            if spearman(one, other) >= REPEAT and spearman(one + other, prior) >= AGREE:
                self.scorers[name] = scorer(self.task)
        self._founders = {str(point.genotype): self._terms(point) for point in founders}
        self._refer([{name: score.value for name, score in terms.items()} for terms in self._founders.values()])

    def restore(self, founders: Sequence[Score]) -> None:
        names = founders[0].terms
        self.scorers = {name: scorer(self.task) for name, scorer in {**PRIOR, **MEASURES}.items() if name in names}
        self._refer([score.terms for score in founders])

    def score(self, point: Point) -> Score:
        found = self._founders.get(str(point.genotype)) or self._terms(point)
        terms = {name: score.value for name, score in found.items()}
        value = sum(WEIGHTS[name] * math.log(places(self.reference[name], [x])[0]) for name, x in terms.items())
        return Score(value, max(score.spread for score in found.values()), terms)

    def _terms(self, point: Point) -> dict[str, Score]:
        return {name: scorer.score(point) for name, scorer in self.scorers.items()}

    def _refer(self, terms: Sequence[Mapping[str, float]]) -> None:
        self.reference = {name: in_order([term[name] for term in terms]) for name in self.scorers}


def in_order(values: ArrayLike) -> Array:
    """Sorted, what is not a number as the worst."""
    return np.sort(_comparable(values))


def places(reference: Array, values: ArrayLike) -> Array:
    """Where `values` lie among the n of `reference`, in order: (those below, and half of the equal, + 1/2) / (n + 1).

    What is not a number is the worst.
    """
    below, upto = (np.searchsorted(reference, _comparable(values), side=side) for side in ("left", "right"))
    found: Array = ((below + upto) / 2 + 0.5) / (len(reference) + 1)
    return found


def _comparable(values: ArrayLike) -> Array:
    return np.nan_to_num(np.asarray(values, np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
