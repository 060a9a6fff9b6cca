"""SRRL: the student's embedding, put through the teacher's classifier, shall give the teacher's logits.

Yang et al., ICLR 2021: L = alpha mean (P e_s - e_t)^2 + beta mean (W_t P e_s - z_t)^2, alpha = beta = 1, W_t the
teacher's frozen classifier, P a linear layer with BatchNorm. The authors' P ends in a ReLU; it is left out, since the
embedding of a transformer has no sign. P and W_t are dropped at export.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import embeddings, frozen, full_precision, seeded, teacher_side


class SoftmaxRegression(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(self, feature: float = 1.0, logits: float = 1.0) -> None:
        super().__init__()
        self.feature, self.logits = feature, logits
        self.adapter: nn.Module = nn.Identity()
        self.classifier: tuple[nn.Module, ...] = ()

    def prepare(self, setup: Setup) -> None:
        teacher = teacher_side(setup, "srrl")
        self.classifier = frozen(teacher.classifier)
        with seeded(setup.seed):
            self.adapter = nn.Sequential(
                nn.Linear(setup.student.embedding, teacher.embedding, bias=False), nn.BatchNorm1d(teacher.embedding)
            )

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None
        ours, theirs = embeddings(student, teacher)
        ours = self.adapter(ours)
        logits = self.classifier[0].to(ours.device)(ours)
        return {
            "srrl_feature": self.feature * F.mse_loss(ours, theirs),
            "srrl_logits": self.logits * F.mse_loss(logits, teacher.logits.float()),
        }
