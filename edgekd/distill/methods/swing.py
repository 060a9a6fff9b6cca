"""Swing distillation: the more private an image, the softer and noisier what the student is told of it.

Li et al. 2022, arXiv 2212.08349. With r_i in [0, 1] the risk of image i, the column `risk` of `distill.table`,

    tau_i = low + (high - low) r_i,   p_i = softmax(t_i / tau_i + r_i sigma n_i),   n_i ~ N(0, 1) for each class,
    L = mean_i [ (1 - alpha) (1 - r_i) CE_i + alpha low^2 KL(p_i || softmax(s_i / tau_i)) ].

Images without risk learn by KD at temperature `low`. n_i is drawn once an image, as a function of (seed, sample): drawn
anew in every epoch it would average out. There is no factor tau_i^2, which would undo the higher temperature.

A temperature that follows the risk and noise in the targets are all that the paper's abstract says, and no code was
published: both laws, the weight 1 - r_i of the label, which is private too, and the defaults are a reconstruction.
With the option `risk` all images have the same. This is no guarantee of differential privacy, and the report says so:
measure what leaks (`edgekd.distill.privacy`), or train with clipped gradients and calibrated noise.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.catalog import MethodRow
from edgekd.distill.methods._base import Batch, Setup
from edgekd.distill.methods._counter import uniform
from edgekd.distill.methods._logits import LogitMethod, not_negative, positive, share
from edgekd.errors import ConfigError

COLUMN = "risk"


class Swing(LogitMethod):
    """Raises ConfigError for a table without risks from 0 to 1, and for mixed images."""

    minimum: ClassVar[float | None] = None
    risks: Tensor  # [N] of the training split

    def __init__(
        self,
        low: float = 4.0,
        high: float = 20.0,
        sigma: float = 1.0,
        alpha: float = 0.9,
        risk: float | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        positive(self, low=low, high=high)
        not_negative(self, sigma=sigma)
        share(self, alpha=alpha, **({} if risk is None else {"risk": risk}))
        if high < low:
            raise ConfigError(f"distill.method swing: high {high} is below low {low}", "Let it rise with the risk.")
        self.low, self.high, self.sigma, self.alpha, self.risk, self.seed = low, high, sigma, alpha, risk, 0

    def row(self, row: MethodRow) -> MethodRow:
        return row if self.risk is None else replace(row, needs=tuple(need for need in row.needs if need != "table"))

    def prepare(self, setup: Setup) -> None:
        self.seed = setup.seed
        if self.risk is not None:
            risks = torch.full((len(setup.labels),), float(self.risk))
        else:
            assert setup.table is not None
            if COLUMN not in setup.table:
                raise ConfigError(
                    f"distill.method swing: distill.table has no column {COLUMN!r}",
                    "Add one from 0 to 1, or give all images one risk by the option risk.",
                )
            risks = torch.from_numpy(setup.table[COLUMN])
            if not 0 <= float(risks.min()) <= float(risks.max()) <= 1:
                raise ConfigError(
                    f"distill.method swing: {COLUMN} of distill.table goes from {risks.min():g} to {risks.max():g}",
                    "Scale it from 0, no risk, to 1.",
                )
        self.register_buffer("risks", risks, persistent=False)

    def transform_batch(self, batch: Batch, step: int) -> Batch:
        if batch.partners is not None:
            raise ConfigError("distill.mixup: a mixed image has two risks", "Set distill.mixup to 0.")
        return batch

    def targets(self, teacher: Tensor, risks: Tensor, samples: Tensor) -> Tensor:
        """log p [N, K] of the teacher's logits."""
        u = uniform(self.seed, 0, samples, teacher.shape[1]).double() + 2.0**-25  # never 0, nor 1
        noise = math.sqrt(2) * torch.erfinv(2 * u - 1).float()
        return F.log_softmax(teacher / self.temperatures(risks) + self.sigma * risks[:, None] * noise, 1)

    def temperatures(self, risks: Tensor) -> Tensor:
        """[N, 1]"""
        return (self.low + (self.high - self.low) * risks)[:, None]

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        samples = torch.from_numpy(batch.samples).to(self.risks.device)
        risks = self.risks[samples]
        log_s = F.log_softmax(student / self.temperatures(risks), 1)
        rows = F.kl_div(log_s, self.targets(teacher, risks, samples), reduction="none", log_target=True).sum(1)
        ce = F.cross_entropy(student, batch.labels, reduction="none", label_smoothing=self.label_smoothing)
        return {"ce": (1 - self.alpha) * ((1 - risks) * ce).mean(), "swing": self.alpha * self.low**2 * rows.mean()}

    def report(self, out: Path) -> list[str]:
        return [
            f"swing: {int((self.risks > 0).sum()):,} of {len(self.risks):,} training images at risk, on average "
            f"{self.risks.mean():.3f}. This lowers what the student gives away of them and is no guarantee of "
            "differential privacy; measure the exposure of canaries."
        ]
