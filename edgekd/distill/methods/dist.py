"""DIST: correlate with the teacher instead of matching it (Huang et al. 2022, arXiv 2205.10536, section 4).

With Y = softmax(z / T), [N, K], and the Pearson distance d(u, v) = 1 - corr(u, v), which a shift or a positive scale
of either side leaves alone,

    L = CE + T^2 [beta mean_i d(Y_i, Y_i^t) + gamma mean_j d(Y_:j, Y_:j^t)]:

the rows ask for each image's ranking of the classes, the columns for each class's ranking of the images.
beta = gamma = 2 as the authors train with, T = 4 as on CIFAR-100 and 1 on ImageNet; the factor T^2 is their code's.
That code adds 1e-8 to the product of the two norms, which drowns the columns of improbable classes; here each norm is
only kept above 1e-8. Columns need at least two rows: with one, that term is constant.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch
from edgekd.distill.methods._logits import LogitMethod, not_negative, positive


def pearson_distance(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """1 - Pearson correlation along `dim` of two matrices, in [0, 2]; 1 where either side is constant."""
    student, teacher = (x - x.mean(dim, keepdim=True) for x in (student, teacher))
    return 1 - F.cosine_similarity(student, teacher, dim)


class DIST(LogitMethod):
    def __init__(
        self, temperature: float = 4.0, beta: float = 2.0, gamma: float = 2.0, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(label_smoothing)
        positive(self, temperature=temperature)
        not_negative(self, beta=beta, gamma=gamma)
        self.temperature, self.beta, self.gamma = temperature, beta, gamma

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        p, q = (student / self.temperature).softmax(1), (teacher / self.temperature).softmax(1)
        scale = self.temperature**2
        return {
            "inter": scale * self.beta * pearson_distance(p, q, 1).mean(),
            "intra": scale * self.gamma * pearson_distance(p, q, 0).mean(),
        }
