"""ReviewKD: every teacher layer reviewed by the student's at its depth and deeper (Chen et al. 2021, arXiv 2104.09044).

From the deepest level up, attention-based fusion (ABF): x = conv(F_s), x <- a x + b up(x_deeper) with [a, b] =
sigmoid(conv [x, up(x_deeper)]), y = conv(x) as wide as the teacher. Hierarchical context loss (HCL) of y and F_t: mean
squared errors of the maps and of them pooled to 4, 2 and 1, weights 1, 1/2, 1/4, 1/8 over their sum. L sums the levels.

The deepest level is the embedding, as in the authors' CIFAR code; sizes are matched by nearest interpolation to the
teacher's. Their weight is 0.6 to 8 by pair and grows over the first 20 of 240 epochs (`warmup`, a share of the run).
Theirs are the teacher's maps before the ReLU; the taps here are mostly after it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import (
    Pair,
    embeddings,
    pair_taps,
    paired_maps,
    seeded,
    teacher_side,
)
from edgekd.distill.methods._logits import share
from edgekd.distill.methods._schedules import run_steps, warmup


def hcl(ours: Tensor, theirs: Tensor) -> Tensor:
    """Hierarchical context loss of two maps [B, C, H, W]."""
    total, weights, weight = F.mse_loss(ours, theirs), 1.0, 1.0
    for size in (4, 2, 1):
        if size < min(ours.shape[2:]):
            weight /= 2
            weights += weight
            total = total + weight * F.mse_loss(F.adaptive_avg_pool2d(ours, size), F.adaptive_avg_pool2d(theirs, size))
    return total / weights


class Fusion(nn.Module):
    """ABF: the student's map and what came from deeper -> (a map like the teacher's, what goes on up).

    The deepest level fuses nothing and has no attention.
    """

    def __init__(self, c_student: int, width: int, c_teacher: int, deepest: bool = False) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(c_student, width, 1, bias=False), nn.BatchNorm2d(width))
        self.attend = None if deepest else nn.Conv2d(2 * width, 2, 1)
        self.leave = nn.Sequential(nn.Conv2d(width, c_teacher, 3, padding=1, bias=False), nn.BatchNorm2d(c_teacher))

    def forward(self, ours: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        x = self.enter(ours)
        if self.attend is not None and deeper is not None:
            deeper = F.interpolate(deeper, x.shape[2:])
            share = self.attend(torch.cat([x, deeper], 1)).sigmoid()
            x = share[:, :1] * x + share[:, 1:] * deeper
        x = F.interpolate(x, size)
        return self.leave(x), x


class ReviewKD(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(self, weight: float = 1.0, warmup: float = 1 / 12) -> None:
        super().__init__()
        share(self, warmup=warmup)
        self.weight, self.warmup, self.steps = weight, warmup, 0
        self.pairs: tuple[Pair, ...] = ()
        self.fusions = nn.ModuleList()

    def prepare(self, setup: Setup) -> None:
        if self.warmup:
            self.steps = run_steps(self, setup, "warmup")
        self.pairs = pair_taps(setup, "reviewkd")
        levels = [(p.c_student, p.c_teacher) for p in self.pairs]
        levels.append((setup.student.embedding, teacher_side(setup, "reviewkd").embedding))
        width = min(512, setup.student.embedding)
        with seeded(setup.seed):
            self.fusions = nn.ModuleList(
                Fusion(ours, width, theirs, deepest=i == len(levels) - 1) for i, (ours, theirs) in enumerate(levels)
            )

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        last = tuple(x[:, :, None, None] for x in embeddings(student, teacher))
        levels = [*paired_maps(self.pairs, student, teacher), (last[0], last[1])]
        terms: list[Tensor] = []
        deeper: Tensor | None = None
        for fusion, (ours, theirs) in zip(reversed(self.fusions), reversed(levels), strict=True):
            reviewed, deeper = fusion(ours, deeper, theirs.shape[2:])
            terms.append(hcl(reviewed.float(), theirs))
        return {"reviewkd": self.weight * warmup(step, self.steps, self.warmup) * torch.stack(terms).sum()}
