"""Non-negative least squares by an active set (Lawson and Hanson 1974, Solving Least Squares Problems, chapter 23)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def nnls(a: Array, b: Array) -> Array:
    """The x >= 0, [n], for which |a x - b| is least; `a` is [m, n], `b` [m]. Columns should be of like size."""
    n = a.shape[1]
    x, free = np.zeros(n), np.zeros(n, bool)
    slope = a.T @ b
    least = 1e-10 * np.abs(slope).max(initial=0.0)
    for _ in range(3 * n):  # each turn frees the variable that promises most; equal columns could go round for ever
        gain = np.where(free, -np.inf, slope)
        if gain.max(initial=-np.inf) <= least:
            break
        free[gain.argmax()] = True
        while True:
            best = np.zeros(n)
            best[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
            negative = free & (best <= 0)
            if not negative.any():
                break
            # Only as far as the first variable that reaches zero, which is bound there.
            x += (x[negative] / (x[negative] - best[negative])).min() * (best - x)
            free &= x > 1e-12 * x.max(initial=0.0)
            x[~free] = 0
        x = best
        slope = a.T @ (b - a @ x)
    return x
