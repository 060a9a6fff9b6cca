"""How much of single training images a model gives away: the exposure of canaries, and a risk from memorisation.

Canaries are images with labels drawn at random, so that nothing but having been trained on them tells a model the label
(Carlini et al. 2019, arXiv 1802.08232). Some are planted in the training set, others of the same making are not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]


def exposure(planted: Values, others: Values) -> Values:
    """log2 |R| - log2 rank of each planted canary, in bits, from the losses [P] of the planted and [M] of the others.

    R is the canary itself and the others, |R| = M + 1, and rank its place by loss, the lowest first; of equal losses
    half come before. At most log2 |R|; a model that has learned nothing of a canary gives 1.44 on average.
    """
    ordered = np.sort(others)
    below = (np.searchsorted(ordered, planted, "left") + np.searchsorted(ordered, planted, "right")) / 2
    bits: Values = np.log2(len(others) + 1) - np.log2(1 + below)
    return bits


def memorisation(teacher: Values, reference: Values) -> Values:
    """A risk from 0 to 1 for `swing` [N]: how much lower the teacher's losses are than those of a reference model.

    1 - exp(-max(0, gap)): the share of the label's odds that the reference, not trained on these images, has not.
    """
    risk: Values = -np.expm1(-np.maximum(0, reference - teacher))
    return risk


def cross_entropies(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Values:
    """The loss of each row [N] of logits [N, K]."""
    top = logits.max(1, keepdims=True).astype(np.float64)
    shifted = logits - top
    losses: Values = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    return losses
