"""CRD: tell which teacher and student embeddings are of one image, among many of other classes.

Tian et al. 2020, arXiv 1910.10699, with the normalisation of the authors' code:
v = W f / |W f| on both sides, h(a, b) = e^(a b / tau) / (e^(a b / tau) + K c), c the mean of e^(a b / tau) in the first
batch; L = beta sum over both directions of mean_i [-log h(v_i, m_i) - sum over K negatives j of log (1 - h(v_i, m_j))].
m are memory banks of the other side's embeddings, one row a training sample, moving averages with momentum 0.5.

Defaults are that code's for CIFAR-100. Negatives are drawn with replacement from the samples of other classes, as a
function of (seed, step, sample); the authors' loader draws without. Scores against the whole bank [B, N] are gathered,
which needs far less memory than gathering embeddings [B, K, 128]. The banks are buffers and change in `after_step`.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._counter import draws
from edgekd.distill.methods._features import embeddings, full_precision, seeded, teacher_side
from edgekd.errors import ConfigError


class ContrastiveKD(Method):
    minimum: ClassVar[float | None] = None
    order: Tensor  # [N] training samples, sorted by class
    starts: Tensor  # [classes] where a class begins in `order`
    counts: Tensor  # [classes]
    bank_student: Tensor  # [N, dim], rows of length 1 (about 1 until first met), as in bank_teacher
    bank_teacher: Tensor
    log_mean: Tensor  # [2] log c of either direction, nan until the first batch

    def __init__(
        self,
        weight: float = 0.8,
        dim: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        self.weight, self.dim, self.negatives = weight, dim, negatives
        self.temperature, self.momentum, self.seed = temperature, momentum, 0
        self.student: nn.Module = nn.Identity()
        self.teacher: nn.Module = nn.Identity()
        self._seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # what `after_step` takes into the banks

    def prepare(self, setup: Setup) -> None:
        teacher, n = teacher_side(setup, "crd"), len(setup.labels)
        counts = torch.bincount(setup.labels, minlength=setup.num_classes)
        if int(counts.max()) == n:
            raise ConfigError(
                "distill.method crd: all training samples are of one class, so there are no negatives",
                "Use data with two classes or more, or method mimic.",
            )
        self.seed = setup.seed
        for name, value in (
            ("order", setup.labels.argsort(stable=True)),
            ("starts", counts.cumsum(0) - counts),
            ("counts", counts),
        ):
            self.register_buffer(name, value, persistent=False)
        with seeded(setup.seed):
            self.student = nn.Linear(setup.student.embedding, self.dim)
            self.teacher = nn.Linear(teacher.embedding, self.dim)
            bound = math.sqrt(3 / self.dim)  # rows of length about 1
            for name in ("bank_student", "bank_teacher"):
                self.register_buffer(name, torch.empty(n, self.dim).uniform_(-bound, bound))
        self.register_buffer("log_mean", torch.full((2,), math.nan))

    def contrasts(self, samples: Tensor, labels: Tensor, step: int) -> Tensor:
        """Rows of the banks for a batch [B]: its own first, then the negatives; int64 [B, 1 + negatives]."""
        start, count = self.starts[labels][:, None], self.counts[labels][:, None]
        place = draws(self.seed, step, samples, self.negatives) % (len(self.order) - count)
        return torch.cat([samples[:, None], self.order[place + count * (place >= start)]], dim=1)

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        ours, theirs = embeddings(student, teacher)
        ours, theirs = F.normalize(self.student(ours)), F.normalize(self.teacher(theirs))
        samples = torch.from_numpy(batch.samples).to(ours.device)
        rows = self.contrasts(samples, batch.labels, step)
        pairs = ((ours, self.bank_teacher), (theirs, self.bank_student))
        scores = torch.stack([(v @ bank.T).gather(1, rows) for v, bank in pairs]) / self.temperature  # [2, B, 1 + K]
        first = scores.detach().flatten(1).logsumexp(1) - math.log(rows.numel())
        log_mean = torch.where(self.log_mean.isnan(), first, self.log_mean)
        self._seen.append((samples, ours.detach(), theirs.detach(), log_mean))
        logits = scores - log_mean[:, None, None] - math.log(self.negatives)
        targets = torch.zeros_like(logits)
        targets[:, :, 0] = 1
        total = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        return {"crd": self.weight * total / len(samples)}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        for samples, ours, theirs, log_mean in self._seen:
            for bank, new in ((self.bank_student, ours), (self.bank_teacher, theirs)):
                bank[samples] = F.normalize(self.momentum * bank[samples] + (1 - self.momentum) * new)
            self.log_mean.copy_(log_mean)
        self._seen.clear()
