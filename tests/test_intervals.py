from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from edgekd.intervals import EXACT, median_interval, nearest_rank, upper_bound


def test_nearest_rank_is_a_value_of_the_sample() -> None:
    ordered = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert [nearest_rank(ordered, q) for q in (0.5, 0.9, 0.95, 0.99, 1.0)] == [5, 9, 10, 10, 10]
    assert nearest_rank([7], 0.01) == 7
    assert nearest_rank(list(range(100)), 0.29) == 28  # 0.29 * 100 is a little more than 29 in binary


@pytest.mark.parametrize("n", [6, 7, 20, 101, 1000, 10_000, 10_001, 50_000])
def test_the_median_lies_in_its_interval_with_95_percent(n: int) -> None:
    low, high = (int(bound) for bound in median_interval(range(n)) or ())
    assert low == n - 1 - high
    outside = 2 * scipy_stats.binom.cdf(low, n, 0.5)  # the median is below value `low` of 0 .. n-1
    tighter = 2 * scipy_stats.binom.cdf(low + 1, n, 0.5)
    assert outside <= 0.05 and tighter > (0.05 if n <= EXACT else 0.045)


def test_too_few_values_have_no_interval() -> None:
    assert median_interval(range(5)) is None and median_interval([]) is None


def test_mlperfs_early_stopping_needs_64_queries_at_p90() -> None:
    assert upper_bound(list(range(63)), 0.9, 0.99) is None
    assert upper_bound(list(range(64)), 0.9, 0.99) == 63
    assert upper_bound(list(range(661)), 0.99, 0.99) is None  # LoadGen: 662 at p99
    assert upper_bound(list(range(662)), 0.99, 0.99) == 661


@pytest.mark.parametrize("n", [100, 1000, 20_000])
def test_the_bound_is_above_the_quantile_with_its_confidence(n: int) -> None:
    bound = upper_bound(list(range(n)), 0.9, 0.99)
    assert bound is not None
    t = n - bound
    assert scipy_stats.binom.cdf(t, n, 0.1) < 0.01 <= scipy_stats.binom.cdf(t + 1, n, 0.1)
    random = np.random.default_rng(0)
    true = -np.log(0.1)  # of the exponential distribution
    draws = 200 if n < 20_000 else 20
    held = [float(upper_bound(sorted(random.exponential(size=n)), 0.9, 0.99) or 0) >= true for _ in range(draws)]
    assert np.mean(held) > 0.95
