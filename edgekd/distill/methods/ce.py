"""Plain cross-entropy, no teacher: how a teacher is trained on the spot, and the baseline of every method."""

from __future__ import annotations

from torch import Tensor

from edgekd.distill.methods._base import Batch, Method, Outputs
from edgekd.tasks.classification import hard_loss


class CrossEntropy(Method):
    minimum = 0.0

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        return {"ce": hard_loss(student.logits, batch.labels, self.label_smoothing)}
