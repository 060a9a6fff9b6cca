"""DKD: the target's share of KD apart from the rest (Zhao et al. 2022, arXiv 2203.08679, equation 7).

With b = (p_y, 1 - p_y) and p^ the distribution over the other classes alone, all at temperature T,

    KL(p_t || p_s) = KL(b_t || b_s) + (1 - p_t,y) KL(p^_t || p^_s)                          (equations 5 and 6)

so a confident teacher silences its own dark knowledge. DKD weights the two parts freely:

    L = CE + T^2 [alpha TCKD + beta NCKD], batch mean.

T = 4 and alpha = 1 as on CIFAR-100, with both parts warmed up over the first 20 of 240 epochs: `warmup`, a share of the
run. beta there goes by the pair: 2 for ResNet-56 to ResNet-20, 6 for VGG, 8 for most; ImageNet takes T = 1, beta = 0.5.
"""

from __future__ import annotations

from torch import Tensor

from edgekd.distill.methods._base import Batch
from edgekd.distill.methods._logits import WarmedParts, class_mask, kl, log_binary, log_softmax_without


def dkd_parts(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(TCKD, NCKD) of each row [N] of logits [N, K], without the factor T^2; both 0 when the logits are equal."""
    mask = class_mask(labels, student.shape[1])
    student, teacher = student / temperature, teacher / temperature
    target = kl(log_binary(student, mask), log_binary(teacher, mask))
    return target, kl(log_softmax_without(student, mask), log_softmax_without(teacher, mask))


class DKD(WarmedParts):
    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        target, rest = dkd_parts(student, teacher, batch.labels, self.temperature)
        scale = self.scale(step)
        return {"tckd": scale * self.alpha * target.mean(), "nckd": scale * self.beta * rest.mean()}
