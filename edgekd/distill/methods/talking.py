"""Talking Models in one round: the student says what it sees, and the teacher's own layers make a prediction of it.

Zhao et al. 2023, arXiv 2310.03188. An adapter A translates the student's feature h at tap `student_tap` into the
teacher's at its tap at the same relative depth; from there the frozen teacher goes on, and the task loss of what comes
out reaches the student through all of the teacher's upper layers:

    L = task CE(tail(A h), y) + answer T^2 KL(softmax(t / T) || softmax(tail(A h) / T)) + state mean (A h - g)^2,

t the teacher's logits and g its own feature at the tap. This is a reconstruction: the paper has encoders and decoders
on both sides, several rounds, and messages back to the student. Its reviewers found those consistency losses to matter
little; of them only the one of states is kept, and it is off by default. The weights are ours. Labels are owned by what
is listed beside, and A and the tail are dropped at export.

The teacher runs twice a step, the second time below the tap on one image only: what lies above must depend on the tap
alone, and a teacher where it does not is refused.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import (
    Pair,
    fold,
    full_precision,
    leading_tokens,
    map_shape,
    pair_taps,
    seeded,
)
from edgekd.distill.methods._logits import not_negative, positive
from edgekd.distill.methods._segment import Segment
from edgekd.distill.methods.kd import kd_loss
from edgekd.errors import ConfigError
from edgekd.tasks.classification import hard_loss


class Adapter(nn.Module):
    """The student's feature as the teacher's: a 1x1 convolution with BatchNorm, resized to the teacher's grid.

    Tokens that stand before the teacher's patches are made of the mean over positions.
    """

    def __init__(self, pair: Pair, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.tap, self.size = pair.student, map_shape(shape, pair.teacher)[1:]
        self.leading = leading_tokens(shape[0]) if len(shape) == 2 else None
        self.project = nn.Sequential(
            nn.Conv2d(pair.c_student, pair.c_teacher, 1, bias=False), nn.BatchNorm2d(pair.c_teacher)
        )
        self.first = nn.Linear(pair.c_teacher, self.leading * pair.c_teacher) if self.leading else None

    def forward(self, feature: Tensor) -> Tensor:
        x: Tensor = self.project(fold(feature, self.tap).float())
        if x.shape[2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=self.size[0] < x.shape[2])
        if self.leading is None:
            return x
        tokens = x.flatten(2).transpose(1, 2)
        if self.first is None:
            return tokens
        return torch.cat([self.first(tokens.mean(1)).unflatten(1, (self.leading, -1)), tokens], 1)


class Talking(Method):
    """`tap`: which of the paired taps talks, from the input 0 on; null: the one in the middle."""

    minimum: ClassVar[float | None] = None

    def __init__(
        self,
        task: float = 1.0,
        answer: float = 0.0,
        state: float = 0.0,
        temperature: float = 4.0,
        tap: int | None = None,
    ) -> None:
        super().__init__()
        not_negative(self, task=task, answer=answer, state=state)
        positive(self, temperature=temperature)
        self.task, self.answer, self.state, self.temperature, self.tap = task, answer, state, temperature, tap
        self.adapter: nn.Module = nn.Identity()
        self.pairs: tuple[Pair, ...] = ()
        self.tails: tuple[Segment, ...] = ()  # one, kept out of the parameters

    def prepare(self, setup: Setup) -> None:
        pairs = pair_taps(setup, "talking")
        assert setup.teacher is not None and setup.teacher_network is not None
        tap = (len(pairs) - 1) // 2 if self.tap is None else self.tap
        if not 0 <= tap < len(pairs):
            raise ConfigError(f"distill.method talking: tap is {tap}, of {len(pairs)} pairs", "Count them from 0.")
        self.pairs = (pairs[tap],)
        tail = Segment(setup.teacher_network, self.pairs[0].teacher)
        tail.check()
        self.tails = (tail,)
        with seeded(setup.seed):
            self.adapter = Adapter(self.pairs[0], setup.teacher.shapes[self.pairs[0].teacher])

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None and teacher.features is not None and student.features is not None
        pair = self.pairs[0]
        said = self.adapter(student.features[pair.student])
        heard = self.tails[0](said)
        terms = {"talking": self.task * hard_loss(heard, batch.labels)}
        if self.answer:
            terms["talking_answer"] = self.answer * kd_loss(heard, teacher.logits, self.temperature)
        if self.state:
            terms["talking_state"] = self.state * F.mse_loss(said, teacher.features[pair.teacher].float())
        return terms
