"""Calibration of a ranking by a few short distillations: a ridge regression that has to beat the prior to be used.

With y the normal scores of k measured accuracies (ranks, so that one failed training does not bend the fit), p the
standardised prior and X [n, F] the standardised logarithms of params, MACs, depth and expressivity,

    y ~ w_0 p + X w,   minimising |y - fit|^2 + w_0^2 + lambda |w|^2,   w_0 > 0.

lambda is the one whose leave-one-out predictions have the highest Kendall tau with the accuracies, the larger one where
two are equal. Where the best is no better than the prior's own tau on the k networks, the prior stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from edgekd.search._statistics import Array, kendall_tau, mean_ranks
from edgekd.search.spaces import Point

LAMBDAS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1e9)  # the last leaves the prior alone
SLOPE = 0.05  # least weight of the prior: a calibration never turns it round


@dataclass(frozen=True)
class Calibration:
    """`figures` ranks every candidate; tau of prior and of leave-one-out predictions on the measured ones."""

    figures: list[float]
    used: bool
    prior_tau: float
    loo_tau: float
    shrinkage: float


def choose(prior: Sequence[float], k: int) -> list[int]:
    """Places of `k` candidates spread evenly over the prior's ranking, best and worst included."""
    order = np.argsort(prior, kind="stable")
    return [int(order[i]) for i in np.unique(np.linspace(0, len(order) - 1, min(k, len(order))).round().astype(int))]


def calibrate(
    points: Sequence[Point], prior: Sequence[float], measured: Sequence[int], accuracy: Sequence[float]
) -> Calibration:
    """Rank all `points` from the `accuracy` of those at the places `measured`, in the same order."""
    inputs = np.column_stack([standardise(np.array(prior)), *map(standardise, _features(points).T)])
    places, target = np.array(measured), normal_scores(np.array(accuracy))
    prior_tau = kendall_tau([prior[i] for i in measured], accuracy) or 0.0
    best, shrinkage = -math.inf, LAMBDAS[-1]
    for strength in LAMBDAS:
        left_out = []
        for i in range(len(places)):
            rest = np.arange(len(places)) != i
            left_out.append(float(_Ridge(inputs[places[rest]], target[rest], strength)(inputs[places[[i]]])[0]))
        tau = kendall_tau(left_out, accuracy)
        if tau is not None and tau >= best:
            best, shrinkage = tau, strength
    if best <= prior_tau:
        return Calibration(list(prior), False, prior_tau, best, shrinkage)
    figures = _Ridge(inputs[places], target, shrinkage)(inputs)
    return Calibration([float(figure) for figure in figures], True, prior_tau, best, shrinkage)


def standardise(values: Array) -> Array:
    """Mean 0, deviation 1; a constant column becomes 0."""
    deviation = values.std()
    result: Array = (values - values.mean()) / (deviation if deviation > 1e-12 else math.inf)
    return result


def normal_scores(values: Array) -> Array:
    """What a normal sample's ordered values would be, by rank: the quantile at (rank - 1/2) / n."""
    quantile = NormalDist().inv_cdf
    return np.array([quantile((rank - 0.5) / len(values)) for rank in mean_ranks(values)])


def _features(points: Sequence[Point]) -> Array:
    return np.array([[math.log(max(x, 1e-9)) for x in (p.params, p.macs, p.depth, p.expressivity)] for p in points])


class _Ridge:
    """A fitted regression; called with inputs [n, 1 + F], the prior first, it predicts [n]."""

    def __init__(self, inputs: Array, target: Array, strength: float) -> None:
        self.mean, self.level = inputs.mean(0), target.mean()
        centred = inputs - self.mean
        penalty = np.diag([1.0, *[strength] * (inputs.shape[1] - 1)])
        self.weights = np.linalg.solve(centred.T @ centred + penalty, centred.T @ (target - self.level))
        self.weights[0] = max(self.weights[0], SLOPE)

    def __call__(self, inputs: Array) -> Array:
        result: Array = self.level + (inputs - self.mean) @ self.weights
        return result
