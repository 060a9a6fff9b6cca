"""OFD: regress the features before the ReLU, and only what it lets matter (Heo et al. 2019, arXiv 1904.01866).

Margin ReLU T = max(F_t, m), m_c < 0 the mean of channel c's negative values; S = BatchNorm(conv1x1(F_s));
partial distance d = sum over entries of (T - S)^2, 0 where S <= T <= 0; L = 1/1000 sum over layers of d / (B 2^k),
k = 0 for the last layer, 1 for the one before, and so on.

The paper computes m from the BatchNorm in front of the ReLU. Shapes do not show it, so m is a reconstruction: the mean
of the negative values seen so far, kept in buffers. Where taps come after a ReLU none is seen, m is 0 and what is left
is the rectified teacher with the partial distance; name taps before it (`distill.taps`) for the paper's position.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import Pair, full_precision, pair_taps, paired_maps, same_size, seeded


def partial_distance(ours: Tensor, theirs: Tensor, margin: Tensor) -> Tensor:
    """Sum over a batch of [B, C, H, W] with `margin` [C], over B."""
    target = theirs.maximum(margin[:, None, None])
    counts = (ours > target) | (target > 0)
    return ((ours - target).square() * counts).sum() / len(ours)


class Negatives(nn.Module):
    """Sum and number of each channel's negative values seen so far."""

    total: Tensor
    number: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("number", torch.zeros(channels, dtype=torch.float64))
        self.fresh: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        """The mean [C] with those of `x` [B, C, H, W] among them; 0 for a channel without any."""
        negative = x.clamp_max(0).sum((0, 2, 3), dtype=torch.float64), (x < 0).sum((0, 2, 3)).double()
        self.fresh.append(negative)
        return ((self.total + negative[0]) / (self.number + negative[1]).clamp_min(1)).float()

    def keep(self) -> None:
        for total, number in self.fresh:
            self.total += total
            self.number += number
        self.fresh.clear()


class OverhaulKD(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(self, weight: float = 1e-3) -> None:
        super().__init__()
        self.weight = weight
        self.pairs: tuple[Pair, ...] = ()
        self.connectors = nn.ModuleList()
        self.negatives = nn.ModuleList()

    def prepare(self, setup: Setup) -> None:
        self.pairs = pair_taps(setup, "ofd")
        with seeded(setup.seed):
            self.connectors = nn.ModuleList(_connector(p.c_student, p.c_teacher) for p in self.pairs)
        self.negatives = nn.ModuleList(Negatives(p.c_teacher) for p in self.pairs)

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        terms = []
        maps = paired_maps(self.pairs, student, teacher)
        for i, (connector, negatives, pair) in enumerate(zip(self.connectors, self.negatives, maps, strict=True)):
            ours, theirs = same_size(*pair)
            terms.append(partial_distance(connector(ours), theirs, negatives(theirs)) / 2 ** (len(maps) - 1 - i))
        return {"ofd": self.weight * torch.stack(terms).sum()}

    def after_step(self, step: int) -> None:
        for negatives in self.negatives:
            negatives.keep()  # type: ignore[operator]


def _connector(c_student: int, c_teacher: int) -> nn.Module:
    conv = nn.Conv2d(c_student, c_teacher, 1, bias=False)
    nn.init.normal_(conv.weight, std=math.sqrt(2 / c_teacher))
    return nn.Sequential(conv, nn.BatchNorm2d(c_teacher))
