"""Strategies: k-centre and BADGE by hand and against what they compute the slow way, and what every one gives."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.catalog import STRATEGIES
from edgekd.data.strategies import Pool, badge, entropy, k_centre, pcoreset

RNG = np.random.default_rng


def pool(rows: int = 40, seed: int = 0) -> Pool:
    rng = RNG(seed)
    p, known = (rng.dirichlet(np.ones(4), n).astype(np.float32) for n in (rows, 5))
    return Pool(p, known, rng.normal(size=(rows, 3)).astype("f4"), rng.normal(size=(5, 3)).astype("f4"))


def test_k_centre_by_hand() -> None:
    points = np.array([[0.1], [0.5], [1.0], [0.9], [0.25]], np.float32)
    # From 0 the farthest is 1; then 0.5 is 0.5 from both; then 0.25 is 0.25 from both, 0.9 and 0.1 are 0.1 from one.
    assert k_centre(points, np.zeros((1, 1), np.float32), 3, RNG(0)).tolist() == [2, 1, 4]
    assert sorted(k_centre(points, np.zeros((1, 1), np.float32), 5, RNG(0)).tolist()) == [0, 1, 2, 3, 4]


def test_pcoreset_is_the_slow_one() -> None:
    given = pool()
    p, taken = given.probabilities.astype(np.float64), list(given.known.astype(np.float64))
    expected: list[int] = []
    for _ in range(10):
        nearest = [min(np.linalg.norm(row - other) for other in taken) for row in p]
        expected.append(int(np.argmax([-1 if i in expected else d for i, d in enumerate(nearest)])))
        taken.append(p[expected[-1]])
    assert pcoreset(given, 10, RNG(0)).tolist() == expected


def test_without_labelled_rows_the_first_is_drawn() -> None:
    given = pool()
    none = Pool(given.probabilities, given.known[:0])
    firsts = {int(pcoreset(none, 1, RNG(seed))[0]) for seed in range(20)}
    assert len(firsts) > 5


def test_entropy_takes_the_least_sure_first() -> None:
    p = np.array([[1, 0], [0.5, 0.5], [0.9, 0.1]], np.float32)
    assert entropy(Pool(p, p[:0]), 2, RNG(0)).tolist() == [1, 2]


def test_badge_draws_by_the_distance_of_gradients() -> None:
    """Three rows: the first choice is the longest gradient, the second has the odds of its squared distance to it."""
    p = np.array([[0.6, 0.4], [0.5, 0.5], [0.9, 0.1]], np.float32)
    h = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], np.float32)
    given = Pool(p, p[:0], h, h[:0])
    gradients = [((row - np.eye(2)[row.argmax()])[:, None] * z).ravel() for row, z in zip(p, h, strict=True)]
    assert int(np.argmax([g @ g for g in gradients])) == 1
    draws = [badge(given, 2, RNG(seed)).tolist() for seed in range(2000)]
    assert {row[0] for row in draws} == {1} and {row[1] for row in draws} == {0, 2}
    apart = [np.sum((g - gradients[1]) ** 2) for g in gradients]
    assert np.mean([row[1] == 0 for row in draws]) == pytest.approx(apart[0] / (apart[0] + apart[2]), abs=0.03)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("equal", [False, True])
def test_every_strategy_chooses_as_many_as_asked_for(name: str, equal: bool) -> None:
    given = pool()
    if equal:  # a pool of one image, many times
        given = Pool(given.probabilities[[0] * 40], given.known, given.embeddings[[0] * 40], given.known_embeddings)
    choose = STRATEGIES[name].load()
    for count in (1, 7, 40):
        rows = choose(given, count, RNG(1))
        assert len(set(rows.tolist())) == len(rows) == count and 0 <= rows.min() and rows.max() < 40
        assert np.array_equal(rows, choose(given, count, RNG(1)))
