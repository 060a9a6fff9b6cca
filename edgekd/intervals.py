"""How sure a figure is: ranks and the median of a sample whose distribution is not known, and proportions."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, lgamma, log, sqrt

EXACT = 10_000  # above, the normal approximation is within two places of the exact ranks


def nearest_rank(ordered: Sequence[float], q: float) -> float:
    """The smallest of the sorted values that a share `q` in (0, 1] of them does not exceed."""
    return ordered[max(0, ceil(round(q * len(ordered), 9)) - 1)]


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """At least 95 % confidence of the median, between two of the values (sign test); None below 6 of them.

    The values are taken as independent (Le Boudec, Performance Evaluation of Computer and Communication Systems,
    theorem 2.1; for run times Hoefler and Belli, Scientific Benchmarking of Parallel Computing Systems, SC 2015).
    Calls that follow one another are not quite: what compares two graphs are the medians of their turns.
    """
    n, ordered = len(values), sorted(values)
    if n > EXACT:
        k = int((n - 1.96 * sqrt(n)) / 2)
        return ordered[k - 1], ordered[n - k]
    outside, ways, k = 1, 1, 0  # how often k or fewer of n tosses are heads, in 1 / 2^n
    while 40 * outside <= 2**n:
        k += 1
        ways = ways * (n - k + 1) // k
        outside += ways
    return (ordered[k - 1], ordered[n - k]) if k else None


def upper_bound(ordered: Sequence[float], q: float, confidence: float) -> float | None:
    """A sorted value that is above the true quantile `q` with this confidence; None where there are too few values.

    It is the early-stopping estimate of MLPerf's LoadGen (early_stopping.cc, tolerance 0): with t the most values that
    may lie above the quantile so that t or fewer of n do with a probability of 1 - confidence at most, the t-th
    largest. LoadGen asks for t of at least 1: 64 values for q = 0.9 and a confidence of 0.99.
    """
    n, t, below = len(ordered), -1, 0.0
    while (below := below + _binomial(n, t + 1, 1 - q)) < 1 - confidence:
        t += 1
    return ordered[n - t] if t >= 1 else None


def _binomial(n: int, k: int, p: float) -> float:
    """The probability of exactly `k` of `n`, by logarithms: the factors alone are beyond a float."""
    ways = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
    return exp(ways + k * log(p) + (n - k) * log(1 - p))


def wilson(correct: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927): right also near 0 and 1, unlike p +- z*sigma."""
    p, zz = correct / n, z * z
    centre = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
