"""Which rows of a pool to label next, from what a model says of them and of the labelled rows.

A strategy takes a `Pool` and gives the places in it of `count` rows, in the order in which they were chosen. k-centre
greedy (Sener and Savarese 2018) takes again and again the row x that is farthest from the nearest row c that is
labelled or already taken,

    argmax_x min_c |x - c|_2,

in the space of probabilities (PCoreSet, Kang et al. 2025) or of embeddings. The distance to the nearest is kept and
lowered after each choice, so Q choices of M rows of D values cost O(Q M D).

BADGE (Ash et al. 2020) draws as k-means++ does, with odds as the squared distance to the nearest row that was drawn,
among the gradients of the last layer's cross-entropy for the predicted class y, g(x) = (p - onehot(y)) h^T with
embedding h. g has C D values and is never made: g(x) . g(z) is the product of two products of C and D values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """`probabilities` [M, C] of the unlabelled rows and `known` [L, C] of the labelled; embeddings where asked for."""

    probabilities: Array
    known: Array
    embeddings: Array | None = None  # [M, D]
    known_embeddings: Array | None = None  # [L, D]


def pcoreset(pool: Pool, count: int, rng: np.random.Generator) -> Rows:
    return k_centre(pool.probabilities, pool.known, count, rng)


def coreset(pool: Pool, count: int, rng: np.random.Generator) -> Rows:
    assert pool.embeddings is not None and pool.known_embeddings is not None
    return k_centre(pool.embeddings, pool.known_embeddings, count, rng)


def random(pool: Pool, count: int, rng: np.random.Generator) -> Rows:
    return rng.permutation(len(pool.probabilities))[:count]


def entropy(pool: Pool, count: int, rng: np.random.Generator) -> Rows:
    p = pool.probabilities.astype(np.float64)
    rows: Rows = (p * np.log(np.maximum(p, 1e-300))).sum(1).argsort(kind="stable")[:count]
    return rows


def k_centre(points: Array, centres: Array, count: int, rng: np.random.Generator) -> Rows:
    """Of `points` [M, D], beside `centres` [L, D]; without a centre the first is drawn. Of equals the first row."""

    def squared(centre: Array) -> Array:
        apart = points - centre
        distances: Array = np.einsum("md,md->m", apart, apart)
        return distances

    nearest = np.full(len(points), np.inf, np.float32)
    for centre in centres:
        np.minimum(nearest, squared(centre), out=nearest)
    first = None if len(centres) else int(rng.integers(len(points)))
    return _greedy(nearest, squared, points, count, lambda distances: int(distances.argmax()), first)


def badge(pool: Pool, count: int, rng: np.random.Generator) -> Rows:
    """The first is the row of the largest gradient."""
    assert pool.embeddings is not None
    p, h = pool.probabilities.astype(np.float64), pool.embeddings.astype(np.float64)
    a = p - np.eye(p.shape[1])[p.argmax(1)]
    norms = (a * a).sum(1) * (h * h).sum(1)

    def squared(place: NDArray[np.int64]) -> NDArray[np.float64]:
        z = int(place)
        distances: NDArray[np.float64] = np.maximum(norms + norms[z] - 2 * (a @ a[z]) * (h @ h[z]), 0)
        return distances

    def draw(distances: NDArray[np.float64]) -> int:
        odds = np.maximum(distances, 0)
        if not odds.sum():  # all that is left equals something drawn
            odds = (distances >= 0).astype(np.float64)
        return int(rng.choice(len(odds), p=odds / odds.sum()))

    nearest = np.full(len(p), np.inf)
    return _greedy(nearest, squared, np.arange(len(p)), count, draw, int(norms.argmax()))


def _greedy(
    nearest: NDArray[Any],
    squared: Callable[[Any], NDArray[Any]],
    points: NDArray[Any],
    count: int,
    choose: Callable[[NDArray[Any]], int],
    first: int | None,
) -> Rows:
    """`count` rows by `choose` from the squared distances to the nearest, lowered after each choice; -1 once taken."""
    chosen: list[int] = []
    for _ in range(count):
        row = choose(nearest) if chosen or first is None else first
        np.minimum(nearest, squared(points[row]), out=nearest)
        nearest[row] = -1
        chosen.append(row)
    return np.array(chosen, np.int64)
