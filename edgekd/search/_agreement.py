"""How well predicted latencies agree with measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.search._statistics import spearman


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho, the shares within 5 and 10 % of what was measured, and the median relative error."""

    n: int
    rho: float
    within_5: float
    within_10: float
    median_error: float


def agreement(predicted: Sequence[float], measured: Sequence[float]) -> Agreement:
    guess, truth = np.array(predicted), np.array(measured)
    errors = np.abs(guess / truth - 1)
    return Agreement(
        len(truth),
        float(spearman(guess, truth)),
        float((errors <= 0.05).mean()),
        float((errors <= 0.10).mean()),
        float(np.median(errors)),
    )
