"""The roofline's constants from networks measured on several devices, and how far it is off on one more.

The fit is the most probable constants: the log of a prediction is off by S on a device, and the log of a constant lies
within its spread of what `PRIOR` says. Each device counts as one observation, however many networks ran there, and
far-off networks count less (the pseudo-Huber loss with delta S). The minimum is found by Levenberg and Marquardt's
method (Nocedal and Wright 2006, section 10.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.profile.estimate.roofline import Array, Constants, Limits, Work, times

PRIOR = Constants(
    tensor=0.5, plain=0.6, grouped=0.3, bandwidth=0.7, launch_us=5.0, launch_kcycles=12.0, launch_kcycles_old=12.0
)
SPREADS = np.array([0.3, 0.3, 0.3, 0.3, 0.7, 0.7, 0.7])  # of the logs of PRIOR's constants
S = 0.3
STEP = 1e-4  # of a numeric derivative
TURNS = 60


class Measured(NamedTuple):
    """A network that ran on a device."""

    device: str
    work: Work
    limits: Limits
    ms: float


class Table:
    """Measurements as columns over all their kernels, for predicting them at once."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        self.ms = np.array([m.ms for m in measured])
        self.devices = np.array([m.device for m in measured])
        sizes = [len(m.work.macs) for m in measured]
        self._row = np.repeat(np.arange(len(measured)), sizes)
        self._work = Work(*(np.concatenate(column) for column in zip(*(m.work for m in measured), strict=True)))
        self._limits = Limits(*(np.repeat(np.array(c), sizes) for c in zip(*(m.limits for m in measured), strict=True)))

    def predict(self, constants: Constants) -> Array:
        """Milliseconds of every network, [N]."""
        kernels = times(self._work, self._limits, constants).total
        return np.bincount(self._row, kernels, len(self.ms)).astype(np.float64)

    def without(self, *devices: str) -> NDArray[np.bool_]:
        """Which networks ran on others, [N]."""
        return ~np.isin(self.devices, devices)


def fit(table: Table, chosen: NDArray[np.bool_]) -> Constants:
    """Constants for the `chosen` networks of a table, [N]."""
    weights = np.zeros(len(table.ms))
    for device in np.unique(table.devices[chosen]):
        of = chosen & (table.devices == device)
        weights[of] = 1 / np.sqrt(of.sum())
    start = np.log(astuple(PRIOR))

    def errors(x: Array) -> Array:
        off = np.log(table.predict(Constants(*np.exp(x))) / table.ms)[chosen] / S
        softened = np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1))
        return np.concatenate([weights[chosen] * softened, (x - start) / SPREADS])

    x, damping = start, 1e-3
    found = errors(x)
    for _ in range(TURNS):
        slope = np.column_stack([(errors(x + STEP * unit) - found) / STEP for unit in np.eye(len(x))])
        square, down = slope.T @ slope, slope.T @ found
        step = -np.linalg.solve(square + damping * np.diag(np.diag(square)), down)
        tried = errors(x + step)
        if tried @ tried < found @ found:
            x, found, damping = x + step, tried, damping / 10
            if np.abs(step).max() < 1e-4:
                break
        else:
            damping *= 10
            if damping > 1e8:
                break
    return Constants(*map(float, np.exp(x)))


def band(errors: Mapping[str, Array], coverage: float) -> float:
    """How far |log(predicted / measured)| of a network on a new device goes with probability `coverage`.

    `errors` are those of the devices that were left out of a fit one by one: networks on one device are alike, so the
    devices are what is exchangeable. Each has one share of the weight, and so has the new one, whose error may be
    infinite (hierarchical conformal prediction: Lee, Barber and Willett 2023, "Distribution-free inference with
    hierarchical data"). Infinite where there are too few devices for the coverage.
    """
    size = np.concatenate([np.abs(column) for column in errors.values()])
    weight = np.concatenate([np.full(len(column), 1 / len(column)) for column in errors.values()]) / (len(errors) + 1)
    order = np.argsort(size)
    reached = np.cumsum(weight[order]) >= coverage - 1e-12
    return float(size[order][reached.argmax()]) if reached.any() else float("inf")
