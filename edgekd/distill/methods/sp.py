"""SP: images that look alike to the teacher shall look alike to the student (Tung and Mori 2019, arXiv 1907.09682).

G = rows of A A^T over their L2 norms, A [B, C * H * W] the last features flattened; L = gamma ||G_s - G_t||_F^2 / B^2.

The last pair of taps, as in the paper's CIFAR experiments; gamma = 3000 is theirs. No adapter: G is [B, B] for both.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import Pair, full_precision, pair_taps, paired_maps


def similarity(x: Tensor) -> Tensor:
    """[B, ...] -> [B, B], rows of unit length."""
    flat = x.flatten(1)
    return F.normalize(flat @ flat.T)


class SimilarityPreserving(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(self, weight: float = 3000.0) -> None:
        super().__init__()
        self.weight = weight
        self.pairs: tuple[Pair, ...] = ()

    def prepare(self, setup: Setup) -> None:
        self.pairs = pair_taps(setup, "sp")[-1:]

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        ours, theirs = paired_maps(self.pairs, student, teacher)[0]
        return {"sp": self.weight * F.mse_loss(similarity(ours), similarity(theirs))}
