"""MaKD: beside the classes the student learns aspects of every image (Lee et al. 2025, arXiv 2501.13341).

An aspect is a question with an answer between no and yes; a_q in [0, 1] are the answers that a large model gave for the
training image, once, in `distill.table` (`edgekd aspects` makes one). With s the student's logits and r those of Q
aspects, one linear layer on its embedding,

    L = CE(s, y) + alpha mean_q BCE(sigmoid(r_q), a_q), or in place of CE what is listed beside: `[kd, makd]`.

The authors widen the last layer to C + Q outputs and cut Q of them off at export; two layers on one embedding are the
same, and what ships is the student. alpha = 4 is theirs, for Q = 50 and students trained from scratch. By itself it
runs no teacher. `columns` names the aspects; null: all columns of the table but `risk`, which is `swing`'s.

Aspects were found in whole images, and the student sees crops: ask for what a crop shows too, or lower distill.pad.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import full_precision, seeded
from edgekd.distill.methods._logits import not_negative
from edgekd.errors import ConfigError


class MaKD(Method):
    """Raises ConfigError for a column that the table lacks, or whose values are no probabilities."""

    minimum: ClassVar[float | None] = None
    aspects: Tensor  # [N, Q] of the training split

    def __init__(
        self,
        alpha: float = 4.0,
        columns: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        not_negative(self, alpha=alpha)
        self.alpha, self.columns = alpha, columns
        self.head: nn.Module = nn.Identity()

    def prepare(self, setup: Setup) -> None:
        assert setup.table is not None
        names = self.columns or tuple(name for name in setup.table if name != "risk")
        unknown = [name for name in names if name not in setup.table]
        if unknown or not names:
            have = ", ".join(list(setup.table)[:9])
            raise ConfigError(
                f"distill.method makd: distill.table has no column {(unknown or ['of an aspect'])[0]}, only {have}",
                "Name columns that it has, or null for all.",
            )
        for name in names:
            low, high = np.nanmin(setup.table[name]), np.nanmax(setup.table[name])
            if low < 0 or high > 1:
                raise ConfigError(
                    f"distill.method makd: column {name} of distill.table goes from {low:g} to {high:g}",
                    "Store probabilities, from 0 to 1.",
                )
        values = torch.from_numpy(np.stack([setup.table[name] for name in names], 1))
        self.register_buffer("aspects", values, persistent=False)
        with seeded(setup.seed):
            self.head = nn.Linear(setup.student.embedding, len(names))

    def transform_batch(self, batch: Batch, step: int) -> Batch:
        if batch.partners is not None:
            raise ConfigError("distill.mixup: makd has the answers of whole images, not of mixed ones", "Set it to 0.")
        return batch

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert student.embeddings is not None
        answers = self.aspects[torch.from_numpy(batch.samples).to(self.aspects.device)]
        bce = F.binary_cross_entropy_with_logits(self.head(student.embeddings.float()), answers)
        return {"makd": self.alpha * bce}
