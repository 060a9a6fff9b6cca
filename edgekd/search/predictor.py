"""A network's latency from its operators: launches and a roofline, fitted to whole graphs that were measured.

    t = sum over the operators o of  l_f + max(M_o, beta V_o) / r_f + e_o

Of an operator of family f, M_o are the MACs and V_o the numbers read and written (`Operator.traffic`). The device does
beta MACs in the time it moves one number, so the maximum is what binds, arithmetic or memory (the roofline: Williams,
Waterman and Patterson 2009). l_f is what launching the family's kernel costs and r_f the MACs it does in a ms. e_o is
what this size costs beyond that: runtimes like some shapes better than others. The sum over kernels is nn-Meter's
(Zhang et al. 2021), but no kernel has to be measured alone.

The fit weighs errors relative to t. First l_f and 1 / r_f, none negative, with the beta of BALANCES that leaves the
least error; then the e_o, in shares of the operator's cost, by the ridge regression whose leave-one-out error is least
(Rasmussen and Williams 2006, eq. 5.12). Of an operator that was not measured e_o is 0, and the standard error of a
prediction says how much that may be off (eq. 2.26; l, r and beta count as known).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import BackendError
from edgekd.profile.operators import Operator
from edgekd.search._nnls import nnls

LEAST = 20  # measurements
BALANCES = 2.0 ** np.arange(-3, 11)  # MACs a number
STRENGTHS = np.geomspace(1e-4, 1e2, 25)
FLOOR = 0.1  # of the mean operator: below, a share of an operator's cost would leave e_o no room

Array = NDArray[np.float64]


class Signature(NamedTuple):
    """What the fit knows of an operator."""

    name: str
    family: str
    macs: int
    traffic: int


Counts = Mapping[Signature, int]


def count(ops: Iterable[Operator]) -> Counts:
    """How many of which operators a network runs."""
    return Counter(map(_signature, ops))


@cache
def _signature(op: Operator) -> Signature:
    return Signature(repr(op), op.family, op.macs, op.traffic)


class Measurement(NamedTuple):
    """What one call ran, a whole network or an operator alone, and the ms it took."""

    counts: Counts
    ms: float


@dataclass(frozen=True)
class Family:
    """What was fitted for operators of one kind, and the least and greatest MACs and traffic among them."""

    launch_ms: float
    ms_per_mac: float
    macs: tuple[int, int]
    traffic: tuple[int, int]


class Prediction(NamedTuple):
    """`error_ms` is the standard error."""

    ms: float
    error_ms: float


class LatencyPredictor:
    """Fitted to `measurements`, in their order; the same ones give the same predictions. Raises BackendError."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        if len(measurements) < LEAST:
            raise BackendError(
                f"a latency predictor cannot be fitted to {len(measurements)} measurements", f"Take {LEAST} or more."
            )
        self._places = {s: i for i, s in enumerate(dict.fromkeys(s for m in measurements for s in m.counts))}
        counts = np.zeros((len(measurements), len(self._places)))
        for row, measurement in zip(counts, measurements, strict=True):
            for s, n in measurement.counts.items():
                row[self._places[s]] = n
        measured = np.array([m.ms for m in measurements])
        self.balance, self.families = self._fit_roofline(counts, measured)
        self._range = [_span(total) for total in zip(*(_totals(m.counts) for m in measurements), strict=True)]
        costs = np.array([self._cost(s) for s in self._places])
        self._floor = FLOOR * float((counts @ costs).sum() / counts.sum())
        self._fit_residuals(counts, costs, measured)

    def predict(self, counts: Counts) -> Prediction:
        """The ms of a network. Raises BackendError for a family of operators that was not fitted."""
        shares, unmeasured, ms = np.zeros(len(self._places)), 0.0, 0.0
        for s, n in counts.items():
            cost = self._cost(s)
            ms += n * cost
            if s in self._places:
                shares[self._places[s]] = n * max(cost, self._floor)
            else:
                unmeasured += (n * max(cost, self._floor)) ** 2
        like = self._rows @ shares
        ms += float(like @ self._weights)
        doubt = (float(shares @ shares) + unmeasured - float(like @ self._inverse @ like)) / self.strength
        return Prediction(ms, self.noise * (ms**2 + max(doubt, 0.0)) ** 0.5)

    def extrapolates(self, counts: Counts) -> str | None:
        """What lies outside of all that was measured: an operator's family or size, or that of the network; or None."""
        for s in counts:
            if s.family not in self.families:
                return f"{s.family} was not measured"
            family = self.families[s.family]
            outside = _outside(s.macs, family.macs, "MACs") or _outside(s.traffic, family.traffic, "numbers moved")
            if outside:
                return f"{s.family} of {outside}"
        for total, span, unit in zip(_totals(counts), self._range, ("MACs", "numbers moved"), strict=True):
            if outside := _outside(total, span, unit):
                return f"a network of {outside}"
        return None

    def law(self) -> dict[str, Any]:
        """What was fitted, for people: the balance, the families, and the relative noise of a measurement."""
        families = {name: asdict(family) for name, family in self.families.items()}
        return {"balance": self.balance, "noise": self.noise, "families": families}

    def _cost(self, s: Signature) -> float:
        """What an operator takes by the roofline."""
        if s.family not in self.families:
            raise BackendError(
                f"{s.name}: the latency predictor was fitted to no {s.family}",
                "Calibrate the target on the space that has it: `edgekd targets calibrate`.",
            )
        family = self.families[s.family]
        return family.launch_ms + family.ms_per_mac * max(s.macs, self.balance * s.traffic)

    def _fit_roofline(self, counts: Array, measured: Array) -> tuple[float, dict[str, Family]]:
        found: dict[str, list[Signature]] = {}
        for s in self._places:
            found.setdefault(s.family, []).append(s)
        names = list(found)
        member = np.zeros((len(self._places), len(names)))
        member[np.arange(len(member)), [names.index(s.family) for s in self._places]] = 1
        macs, traffic = (np.array(column, float) for column in list(zip(*self._places, strict=True))[2:])
        best: tuple[float, float, Array] | None = None
        for balance in BALANCES:
            work = np.maximum(macs, balance * traffic)
            inputs = counts @ np.hstack([member, member * work[:, None]]) / measured[:, None]
            scale = np.maximum(inputs.max(0), 1e-300)
            fitted = nnls(inputs / scale, np.ones(len(measured))) / scale
            error = float(((inputs @ fitted - 1) ** 2).sum())
            if best is None or error < best[0]:
                best = error, float(balance), fitted
        assert best is not None
        launch, slope = best[2].reshape(2, -1)
        return best[1], {
            name: Family(
                float(launch[i]),
                float(slope[i]),
                _span([s.macs for s in found[name]]),
                _span([s.traffic for s in found[name]]),
            )
            for i, name in enumerate(names)
        }

    def _fit_residuals(self, counts: Array, costs: Array, measured: Array) -> None:
        """The e_o as shares of cost: with rows X / t and left-over r, weights a = (X X^T + s I)^-1 r, e = X^T a."""
        self._rows = counts * np.maximum(costs, self._floor) / measured[:, None]
        rest = 1 - counts @ costs / measured
        values, vectors = np.linalg.eigh(self._rows @ self._rows.T)
        turned = vectors.T @ rest
        errors = []
        for strength in STRENGTHS:
            damped = 1 / (np.maximum(values, 0) + strength)
            left_out = vectors @ (damped * turned) / (vectors**2 @ damped)
            errors.append(float((left_out**2).mean()))
        self.strength = float(STRENGTHS[int(np.argmin(errors))])
        damped = 1 / (np.maximum(values, 0) + self.strength)
        self._inverse = (vectors * damped) @ vectors.T
        self._weights = self._inverse @ rest
        self.noise = float((self.strength * rest @ self._weights / len(rest)) ** 0.5)


def fit_macs(measurements: Sequence[Measurement]) -> Callable[[Counts], float]:
    """The ms by MACs alone, a + b M with neither negative and errors relative: what a predictor has to beat."""
    inputs = np.array([[1.0, _totals(m.counts)[0]] for m in measurements])
    scale = inputs.max(0)
    rows = inputs / scale / np.array([[m.ms] for m in measurements])
    fixed, slope = nnls(rows, np.ones(len(rows))) / scale
    return lambda counts: float(fixed + slope * _totals(counts)[0])


def _totals(counts: Counts) -> tuple[int, int]:
    return sum(n * s.macs for s, n in counts.items()), sum(n * s.traffic for s, n in counts.items())


def _span(values: Sequence[int]) -> tuple[int, int]:
    return min(values), max(values)


def _outside(value: int, span: tuple[int, int], unit: str) -> str | None:
    low, high = span
    return None if low <= value <= high else f"{value:,} {unit}, where {low:,} to {high:,} were measured"
