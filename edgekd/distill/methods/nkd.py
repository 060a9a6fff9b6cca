"""NKD: KD whose two sides put the same mass on the other classes (Yang et al. 2023, arXiv 2303.13005).

KD's cross-entropy splits into -T_y log S_y and a sum over the other classes, whose masses 1 - T_y and 1 - S_y differ,
so that the two can never be equal there. NKD normalises both sides over the other classes first, at temperature T:

    L = CE - T_y log S_y - gamma T^2 sum_(i != y) N(T_i) log N(S_i), batch mean.

The target term is taken at temperature 1. Both terms are cross-entropies, as in the paper: where the student equals
the teacher they are entropies, not 0. T = 3, gamma = 3.5 as in the authors' CIFAR-100 configuration; ImageNet has
T = 1, gamma = 1.5.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch
from edgekd.distill.methods._logits import LogitMethod, class_mask, log_softmax_without, not_negative, positive


def target_loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """-T_y log S_y of each row [N] of logits [N, K]: cross-entropy weighted by the teacher's trust in the label."""
    label = labels[:, None]
    return -(teacher.softmax(1).gather(1, label) * F.log_softmax(student, 1).gather(1, label)).squeeze(1)


def other_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Cross-entropy [N] between the distributions over the classes but the label, without the factor T^2."""
    mask = class_mask(labels, student.shape[1])
    log_s, log_t = (log_softmax_without(x / temperature, mask) for x in (student, teacher))
    return -(log_t.exp() * log_s).sum(1)  # the label's log_s is 0


class NKD(LogitMethod):
    minimum = None

    def __init__(self, temperature: float = 3.0, gamma: float = 3.5, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing)
        positive(self, temperature=temperature)
        not_negative(self, gamma=gamma)
        self.temperature, self.gamma = temperature, gamma

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        other = other_loss(student, teacher, batch.labels, self.temperature).mean()
        return {
            "target": target_loss(student, teacher, batch.labels).mean(),
            "other": self.gamma * self.temperature**2 * other,
        }
