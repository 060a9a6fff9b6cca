"""MGD: generate the teacher's last features from the student's with a part of them masked.

Yang et al. 2022, arXiv 2205.01529: M = 0 where a uniform draw is below lambda, else 1;
L = alpha sum (conv(ReLU(conv(M A F_s))) - F_t)^2 / B, the convolutions 3x3, A a 1x1 one where the channels differ.

alpha = 7e-5 and lambda = 0.15 are the authors' for ImageNet, whose code masks whole channels for classification; on
dense tasks they mask positions (alpha 2e-5, lambda 0.5 to 0.75). CIFAR-100 was not published. The mask is a function of
(seed, step, sample). Maps of two sizes are pooled to the smaller.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._counter import uniform
from edgekd.distill.methods._features import Pair, pair_taps, paired_maps, same_size, seeded
from edgekd.errors import ConfigError


class MaskedGeneration(Method):
    """`mask` is `channels` or `positions`, `ratio` the share of them that is hidden."""

    minimum: ClassVar[float | None] = None

    def __init__(self, weight: float = 7e-5, ratio: float = 0.15, mask: str = "channels") -> None:
        super().__init__()
        if mask not in ("channels", "positions"):
            raise ConfigError(f"distill.method mgd: mask {mask!r} is not known", "Use channels or positions.")
        self.weight, self.ratio, self.mask, self.seed = weight, ratio, mask, 0
        self.pairs: tuple[Pair, ...] = ()
        self.align: nn.Module = nn.Identity()
        self.generate: nn.Module = nn.Identity()

    def prepare(self, setup: Setup) -> None:
        self.seed = setup.seed
        self.pairs = pair_taps(setup, "mgd")[-1:]
        ours, theirs = self.pairs[0].c_student, self.pairs[0].c_teacher
        with seeded(setup.seed):
            self.align = nn.Identity() if ours == theirs else nn.Conv2d(ours, theirs, 1)
            self.generate = nn.Sequential(
                nn.Conv2d(theirs, theirs, 3, padding=1), nn.ReLU(), nn.Conv2d(theirs, theirs, 3, padding=1)
            )

    def visible(self, x: Tensor, batch: Batch, step: int) -> Tensor:
        """The mask of a map [B, C, H, W]: [B, C, 1, 1] or [B, 1, H, W] of zeros and ones."""
        shape = (x.shape[1], 1, 1) if self.mask == "channels" else (1, *x.shape[2:])
        samples = torch.from_numpy(batch.samples).to(x.device)
        draw = uniform(self.seed, step, samples, shape[0] * shape[1] * shape[2])
        return (draw >= self.ratio).view(-1, *shape).to(x.dtype)

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        ours, theirs = same_size(*paired_maps(self.pairs, student, teacher)[0])
        ours = self.align(ours)
        generated = self.generate(ours * self.visible(ours, batch, step)).float()
        return {"mgd": self.weight * (generated - theirs).square().sum() / len(theirs)}
