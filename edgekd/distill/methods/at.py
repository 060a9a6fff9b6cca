"""AT: match where both networks look, layer by layer (Zagoruyko and Komodakis 2017, arXiv 1612.03928).

Q(F) = vec(mean_c |F_c|^p) / ||.||_2, L = beta sum over layers of mean (Q(F_s) - Q(F_t))^2.

beta = 1000 belongs to the mean over positions and images of the authors' code; the paper has beta / 2 and a norm. Maps
of two sizes are pooled to the smaller; tokens are folded to their grid. Neither channels nor scales need to agree.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import Pair, full_precision, pair_taps, paired_maps, same_size


def attention(x: Tensor, p: float = 2.0) -> Tensor:
    """Map [B, C, H, W] -> unit vectors [B, H * W]."""
    return F.normalize(x.abs().pow(p).mean(1).flatten(1))


class AttentionTransfer(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(self, weight: float = 1000.0, p: float = 2.0) -> None:
        super().__init__()
        self.weight, self.p = weight, p
        self.pairs: tuple[Pair, ...] = ()

    def prepare(self, setup: Setup) -> None:
        self.pairs = pair_taps(setup, "at")

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        maps = [same_size(*pair) for pair in paired_maps(self.pairs, student, teacher)]
        terms = [F.mse_loss(attention(ours, self.p), attention(theirs, self.p)) for ours, theirs in maps]
        return {"at": self.weight * torch.stack(terms).sum()}
