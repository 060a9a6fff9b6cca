"""VID: a variational bound on the information the layers share (Ahn et al. 2019, arXiv 1904.05835).

L = sum over layers of mean [(F_t - mu(F_s))^2 / (2 sigma_c^2) + log(sigma_c^2) / 2], sigma_c^2 = softplus(a_c) + eps.

mu is three 1x1 convolutions with ReLU between, as wide as the teacher; a_c is learnt, one a channel, and starts where
the variance is 5. Maps of two sizes are pooled to the smaller. The constant of the Gaussian is left out and the
log-variance has no bound, so the loss can be negative.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import Pair, pair_taps, paired_maps, same_size, seeded

EPSILON = 1e-5


class Gaussian(nn.Module):
    """-log q(teacher | student), mean over all entries, up to a constant."""

    def __init__(self, c_student: int, c_teacher: int, variance: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(c_student, c_teacher, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(c_teacher, c_teacher, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(c_teacher, c_teacher, 1, bias=False),
        )
        self.raw = nn.Parameter(torch.full((c_teacher,), math.log(math.expm1(variance - EPSILON))))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        variance = (F.softplus(self.raw) + EPSILON)[:, None, None]
        error: Tensor = (teacher - self.mean(student)).square() / variance
        return 0.5 * (error + variance.log()).mean()


class VariationalInformation(Method):
    minimum: ClassVar[float | None] = None

    def __init__(self, weight: float = 1.0, variance: float = 5.0) -> None:
        super().__init__()
        self.weight, self.variance = weight, variance
        self.pairs: tuple[Pair, ...] = ()
        self.models = nn.ModuleList()

    def prepare(self, setup: Setup) -> None:
        self.pairs = pair_taps(setup, "vid")
        with seeded(setup.seed):
            self.models = nn.ModuleList(Gaussian(p.c_student, p.c_teacher, self.variance) for p in self.pairs)

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        maps = [same_size(*pair) for pair in paired_maps(self.pairs, student, teacher)]
        terms = [model(ours, theirs) for model, (ours, theirs) in zip(self.models, maps, strict=True)]
        return {"vid": self.weight * torch.stack(terms).sum()}
