"""KD: match the teacher's softened distribution (Hinton et al. 2015, section 2), optionally on standardised logits.

L = (1 - alpha) CE(s, y) + alpha T^2 KL(softmax(t / T) || softmax(s / T)), batch mean.
With `zscore` each row is first standardised, z -> (z - mean) / std (Sun et al. 2024, algorithm 1): the student then
has to match the teacher's ranking and shape, not its scale.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs
from edgekd.tasks.classification import hard_loss


def kd_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0, zscore: bool = False) -> Tensor:
    """T^2 KL(teacher || student), mean over the rows of logits [N, K]; 0 when they are equal."""
    if zscore:
        student, teacher = _standardise(student), _standardise(teacher)
    log_p = F.log_softmax(student / temperature, 1)
    log_q = F.log_softmax(teacher / temperature, 1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * temperature**2


def _standardise(logits: Tensor) -> Tensor:
    return (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True).clamp_min(1e-7)


class KD(Method):
    minimum = 0.0

    def __init__(
        self, temperature: float = 4.0, alpha: float = 0.9, zscore: bool = False, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.temperature, self.alpha, self.zscore = temperature, alpha, zscore
        self.label_smoothing = label_smoothing

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None
        kd = kd_loss(student.logits, teacher.logits, self.temperature, self.zscore)
        ce = hard_loss(student.logits, batch.labels, self.label_smoothing)
        return {"ce": (1 - self.alpha) * ce, "kd": self.alpha * kd}
