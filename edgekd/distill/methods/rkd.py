"""RKD: keep the distances and angles among a batch's embeddings (Park et al. 2019, arXiv 1904.05068).

psi_D(i, j) = |x_i - x_j| / mean distance, psi_A(i, j, k) = cos of the angle at x_j between x_i and x_k;
L = 25 huber(psi_D^s, psi_D^t) + 50 huber(psi_A^s, psi_A^t), means over all pairs and triplets.

Both come from one Gram matrix of the centred embeddings, so memory grows with B^3 and not with B^2 D. 25 and 50 are the
weights for CIFAR-100 of the paper and of Tian et al. 2020. Nothing changes under isometry or scale of either side.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs
from edgekd.distill.methods._features import embeddings, full_precision

SAME = 1e-6  # below this share of the norms, a squared distance is rounding: the points count as one, without an angle


def relations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings [B, D] -> distances over their mean [B, B] and cosines [B, B, B], the angle's point first."""
    x = x - x.mean(0)
    gram = x @ x.T
    norms = gram.diagonal()
    squared = norms[:, None] + norms - 2 * gram
    apart = squared > SAME * (norms[:, None] + norms)
    length = torch.where(apart, squared, 1.0).sqrt()  # the root's gradient has no place where points meet
    distance = length * apart
    distance = distance / (distance.sum() / apart.sum().clamp_min(1)).clamp_min(1e-12)
    inner = gram - gram[:, :, None] - gram[:, None, :] + norms[:, None, None]
    inverse = apart / length
    return distance, inner * inverse[:, :, None] * inverse[:, None, :]


class RelationalKD(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(self, distance: float = 25.0, angle: float = 50.0) -> None:
        super().__init__()
        self.distance, self.angle = distance, angle

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        ours, theirs = (relations(x) for x in embeddings(student, teacher))
        return {
            "rkd_distance": self.distance * F.smooth_l1_loss(ours[0], theirs[0]),
            "rkd_angle": self.angle * F.smooth_l1_loss(ours[1], theirs[1]),
        }
