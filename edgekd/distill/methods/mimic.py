"""Mimic: regress the teacher's embedding, the input of its classifier, from the student's by a linear layer.

L = mean (A e_s + b - e_t)^2: the hint of Romero et al. 2015 on the penultimate layer, which Yang et al. 2021 (srrl's
authors; feature matching, weight 1) and CLIP-KD (Yang et al. 2024, arXiv 2307.12732) found enough alone.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import embeddings, full_precision, seeded, teacher_side


class Mimic(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.adapter: nn.Module = nn.Identity()

    def prepare(self, setup: Setup) -> None:
        teacher = teacher_side(setup, "mimic")
        with seeded(setup.seed):
            self.adapter = nn.Linear(setup.student.embedding, teacher.embedding)

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        ours, theirs = embeddings(student, teacher)
        return {"mimic": self.weight * F.mse_loss(self.adapter(ours), theirs)}
