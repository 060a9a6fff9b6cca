"""RLD: learn from a teacher that errs without learning the error (Sun et al. 2025, arXiv 2408.07703).

Two parts of the teacher's logits are kept, both at temperature T:

- sample confidence (equations 4 to 6): SCD = KL(b_t || b_s) with b_t = (max p_t, 1 - max p_t), whichever class that
  is, and b_s = (p_s,y, 1 - p_s,y): be as sure of the label as the teacher is of its guess;
- masked correlation (equations 8 to 10): MCD = KL(p~_t || p~_s) over the classes that the teacher ranks strictly
  below the label: the ones that it puts first, rightly or not, are left to the student.

    L = CE + T^2 [alpha SCD + beta MCD], batch mean.

Where the teacher is right this is DKD. T = 4, alpha = 1, beta = 8 and a warm-up over the first 20 of 240 epochs
(`warmup`, a share of the run) as in the authors' CIFAR-100 command. Read in that code and in summaries that quote the
equations.
"""

from __future__ import annotations

from torch import Tensor

from edgekd.distill.methods._base import Batch
from edgekd.distill.methods._logits import WarmedParts, class_mask, kl, log_binary, log_softmax_without


def confidence_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """SCD of each row [N] of logits [N, K], without the factor T^2."""
    k = student.shape[1]
    guess, label = class_mask(teacher.argmax(1), k), class_mask(labels, k)
    return kl(log_binary(student / temperature, label), log_binary(teacher / temperature, guess))


def correlation_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """MCD of each row [N] of logits [N, K], without T^2; 0 where the teacher ranks no class below the label."""
    mask = teacher >= teacher.gather(1, labels[:, None])
    log_s, log_t = (log_softmax_without(x / temperature, mask) for x in (student, teacher))
    return kl(log_s, log_t)


class RLD(WarmedParts):
    minimum = None  # 0 only where the teacher is right

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        inputs = (student, teacher, batch.labels, self.temperature)
        scale = self.scale(step)
        return {
            "scd": scale * self.alpha * confidence_loss(*inputs).mean(),
            "mcd": scale * self.beta * correlation_loss(*inputs).mean(),
        }
