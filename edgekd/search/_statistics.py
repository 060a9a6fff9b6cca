"""Rank statistics, of a search's scores and of how they agree with what was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two equally long sequences, in [-1, 1]; None where either is constant."""
    x, y = (np.sign(np.subtract.outer(values, values)) for values in (np.asarray(a), np.asarray(b)))
    pairs = float((x * x).sum() * (y * y).sum()) ** 0.5
    return float((x * y).sum()) / pairs if pairs else None
