"""FitNet: regress the hint, the teacher's middle map, from the student's (Romero et al. 2015, arXiv 1412.6550).

L = mean (r(F_s) - F_t)^2, r a 1x1 convolution with BatchNorm; maps of two sizes are pooled to the smaller.

The paper trains the hint first and the student after; here both are trained at once with weight 100, as in the
benchmark of Tian et al. 2020. A reconstruction is the regressor's missing last nonlinearity: the paper takes that of
the hinted layer, which shapes do not tell.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import Pair, full_precision, pair_taps, paired_maps, same_size, seeded
from edgekd.errors import ConfigError


class FitNet(Method):
    """`hint` counts the pairs of taps from 0; None is the middle one, the deeper of two."""

    minimum: ClassVar[float | None] = 0.0

    def __init__(self, weight: float = 100.0, hint: int | None = None) -> None:
        super().__init__()
        self.weight, self.hint = weight, hint
        self.pairs: tuple[Pair, ...] = ()
        self.regressor: nn.Module = nn.Identity()

    def prepare(self, setup: Setup) -> None:
        pairs = pair_taps(setup, "fitnet")
        hint = len(pairs) // 2 if self.hint is None else self.hint
        if not 0 <= hint < len(pairs):
            raise ConfigError(f"distill.method fitnet: hint {hint} of {len(pairs)} pairs of taps", "Count from 0.")
        pair = pairs[hint]
        self.pairs = (pair,)
        with seeded(setup.seed):
            self.regressor = nn.Sequential(
                nn.Conv2d(pair.c_student, pair.c_teacher, 1, bias=False), nn.BatchNorm2d(pair.c_teacher)
            )

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        ours, theirs = same_size(*paired_maps(self.pairs, student, teacher)[0])
        return {"fitnet": self.weight * F.mse_loss(self.regressor(ours), theirs)}
