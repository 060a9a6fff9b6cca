"""PLD: the student ranks the classes as the label and then the teacher do (Bassam et al. 2025, arXiv 2506.12542).

With the order pi = (y, then the other classes by falling t) and the weights alpha_k = softmax(t / T)[pi_k], a
Plackett-Luce model of the student chooses the classes one after the other, each among those that are left:

    L = sum_k alpha_k [ log sum over l >= k of exp(s_pi_l) - s_pi_k ], batch mean.

alpha = (1, 0, ..., 0) is cross-entropy, a uniform one ListMLE. T is on the teacher's side alone, and no factor T^2
follows. The loss takes the place of cross-entropy and of KD: the first choice is reported as `ce`, the others as `pld`.
T = 1 as on ImageNet; 4 on CIFAR-100. The infimum, 0, lies at infinite gaps between the logits, so the student grows
over-confident: calibrate its temperature where probabilities count.

Additions to the paper: `top` stops after so many choices, each still among all classes left, for data of very many
classes. `floor` is the least weight of the first choice: where the teacher errs, the label's own is small. Label
smoothing is on the first choice alone.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.catalog import MethodRow
from edgekd.distill.methods._base import Batch
from edgekd.distill.methods._logits import NOTHING, LogitMethod, class_mask, positive, share
from edgekd.errors import ConfigError


def ranking(teacher: Tensor, labels: Tensor | None, top: int | None = None) -> Tensor:
    """pi [N, K], or its first `top` places, of logits [N, K]; equal logits keep their order where all are ranked."""
    if labels is not None:
        teacher = teacher.masked_fill(class_mask(labels, teacher.shape[1]), torch.inf)
    if top is not None and top < teacher.shape[1]:
        return teacher.topk(top, 1).indices
    return teacher.argsort(dim=1, descending=True, stable=True)


def surprises(student: Tensor, order: Tensor) -> Tensor:
    """-log probability of each choice of `order` [N, M] among the classes left, from logits [N, K]: [N, M]."""
    chosen = student.gather(1, order)
    left = chosen
    if order.shape[1] < student.shape[1]:
        others = student.scatter(1, order, NOTHING).logsumexp(1, keepdim=True)
        left = torch.cat([chosen, others], 1)
    return left.flip(1).logcumsumexp(1).flip(1)[:, : order.shape[1]] - chosen


def choices(
    student: Tensor, teacher: Tensor, labels: Tensor | None, temperature: float = 1.0, top: int | None = None
) -> tuple[Tensor, Tensor]:
    """(weights, surprises) of the M choices, both [N, M], of logits [N, K] and labels [N]; M is K, or `top`.

    The loss is the mean over rows of their products' sum. Without labels the teacher's own ranking counts, and a
    warning says what is missing then.
    """
    if labels is None:
        warnings.warn("PLD without labels has no finite minimum: add a divergence from the teacher", stacklevel=2)
    order = ranking(teacher, labels, top)
    return (teacher / temperature).softmax(1).gather(1, order), surprises(student, order)


class PLD(LogitMethod):
    """`top` None ranks all classes."""

    minimum = None  # 0 only at infinite gaps

    def __init__(
        self, temperature: float = 1.0, top: int | None = None, floor: float = 0.0, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(label_smoothing)
        positive(self, temperature=temperature)
        share(self, floor=floor)
        if top is not None and top < 1:
            raise ConfigError(f"distill.method pld: top is {top}", "Write 1 or a number above it, or null for all.")
        self.temperature, self.top, self.floor = temperature, top, floor

    def row(self, row: MethodRow) -> MethodRow:
        return row if self.top is None else replace(row, needs=("labels",), top_logits=self.top)

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        weights, costs = choices(student, teacher, batch.labels, self.temperature, self.top)
        first = F.cross_entropy(student, batch.labels, reduction="none", label_smoothing=self.label_smoothing)
        return {
            "ce": (weights[:, 0].clamp_min(self.floor) * first).mean(),
            "pld": (weights * costs)[:, 1:].sum(1).mean(),
        }
