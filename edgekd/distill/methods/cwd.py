"""CWD: match where each channel is active, as a distribution over positions (Shu et al. 2021, arXiv 2011.13256).

p_c = softmax over positions of F_c / T; L = weight T^2 mean over channels and images of KL(p_c^t || p_c^s).

The last pair of taps; a 1x1 convolution makes channels alike where they differ. T = 4 and weight 50 are published for
feature maps in segmentation (3 for score maps), none for classification. Maps of two sizes are pooled to the smaller; a
tap of one position has nothing to tell and is refused.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import (
    Pair,
    check_positions,
    full_precision,
    pair_taps,
    paired_maps,
    same_size,
    seeded,
)
from edgekd.distill.methods.kd import kd_loss


class ChannelWiseKD(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(self, weight: float = 50.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature
        self.pairs: tuple[Pair, ...] = ()
        self.align: nn.Module = nn.Identity()

    def prepare(self, setup: Setup) -> None:
        pair = pair_taps(setup, "cwd")[-1]
        check_positions(setup, pair, "cwd")
        self.pairs = (pair,)
        if pair.c_student != pair.c_teacher:
            with seeded(setup.seed):
                self.align = nn.Conv2d(pair.c_student, pair.c_teacher, 1, bias=False)

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        ours, theirs = same_size(*paired_maps(self.pairs, student, teacher)[0])
        ours, theirs = (x.flatten(2).flatten(0, 1) for x in (self.align(ours), theirs))  # [B * C, H * W]
        return {"cwd": self.weight * kd_loss(ours, theirs, self.temperature)}
