"""PKT: match the probabilities of picking one image as another's neighbour.

Passalis and Tefas 2018, arXiv 1803.10837:
K(a, b) = (cos(a, b) + 1) / 2, p(j | i) = K(x_i, x_j) / sum_k K(x_i, x_k); L = lambda mean_ij p^t log (p^t / p^s).

As in the authors' code an image counts among its own neighbours, and the mean is over all B^2 pairs: lambda = 30000
(Tian et al. 2020, CIFAR-100) belongs to that mean. Works on embeddings of any two widths.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs
from edgekd.distill.methods._features import embeddings, full_precision

EPSILON = 1e-7


def neighbours(x: Tensor) -> Tensor:
    """Embeddings [B, D] -> p(j | i) [B, B], rows sum to 1."""
    x = F.normalize(x)
    kernel = (x @ x.T + 1) / 2
    return kernel / kernel.sum(1, keepdim=True)


class ProbabilisticTransfer(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(self, weight: float = 30000.0) -> None:
        super().__init__()
        self.weight = weight

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        ours, theirs = (neighbours(x) + EPSILON for x in embeddings(student, teacher))
        return {"pkt": self.weight * (theirs * (theirs / ours).log()).mean()}
