"""TTM: temperature on the teacher's side alone (Zheng and Yang 2024, arXiv 2402.11148, equation 2).

A temperature T is the power gamma = 1 / T of the distribution, normalised (equation 9). TTM matches the student as it
will be used, at temperature 1, with the transformed teacher p^:

    L = CE + beta KL(p^ || q), batch mean.

It is KD with a penalty on confidence, KL(p^ || q) = T KL(p^ || q^) - (T - 1) H_gamma(q) + (T - 1) H(p^) with the
Renyi entropy H_gamma (equation 15). `weighted` (WTTM, equation 23) multiplies each image's divergence by the power
sum U = sum_j p_j^gamma (equation 22), from 1 for a one-hot teacher to K^(1 - gamma) for a uniform one: teachers that
hesitate count more.

The authors tune both numbers to the pair (table 8). Defaults are ResNet-56 to ResNet-20's: gamma 0.3, beta 7, or 1.5
weighted; gamma runs from 0.1 to 0.4 there, beta from 7 to 101, or from 1.4 to 16 weighted.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch
from edgekd.distill.methods._logits import LogitMethod, kl, not_negative, positive


def ttm_loss(student: Tensor, teacher: Tensor, gamma: float) -> Tensor:
    """KL(p^ || q) of each row [N] of logits [N, K]."""
    return kl(F.log_softmax(student, 1), F.log_softmax(gamma * teacher, 1))


def power_sum(teacher: Tensor, gamma: float) -> Tensor:
    """U = sum_j p_j^gamma of each row [N] of logits [N, K]."""
    return (gamma * F.log_softmax(teacher, 1)).exp().sum(1)


class TTM(LogitMethod):
    """`beta` None: 7, or 1.5 with `weighted`."""

    minimum = None  # the student is to equal the transformed teacher

    def __init__(
        self, gamma: float = 0.3, beta: float | None = None, weighted: bool = False, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(label_smoothing)
        beta = (1.5 if weighted else 7.0) if beta is None else beta
        positive(self, gamma=gamma)
        not_negative(self, beta=beta)
        self.gamma, self.beta, self.weighted = gamma, beta, weighted

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        rows = ttm_loss(student, teacher, self.gamma)
        if self.weighted:
            rows = rows * power_sum(teacher, self.gamma)
        return {"ttm": self.beta * rows.mean()}
