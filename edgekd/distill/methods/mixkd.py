"""MixKD: a few images mixed, and every row of logits at its own scale (Choi et al. 2023, arXiv 2211.03946).

Partial mixup: of an image x with label a and the one opposite in the batch, of label b, the teacher and the student see
lambda x_a + (1 - lambda) x_b with lambda ~ Beta(1, 1), drawn for each image; all but a share `mixed` of the images stay
as they are, lambda = 1. With sigma(z) the unbiased standard deviation of a row of logits,

    L = gamma CE(s / sigma(s), lambda 1_a + (1 - lambda) 1_b)
        + alpha KL(softmax(t / sigma(t)) || softmax(s / sigma(s))), batch mean.

There is no factor T^2, and the gradient flows through sigma(s), so the student's logits have no scale of their own:
calibrate its temperature where probabilities count. Two classes would leave but a sign, and are refused.

gamma = 0.1, alpha = 0.9 and a tenth of the images mixed are the authors'. Their code draws the images that stay with
replacement, so that it mixes four tenths of a batch of 64; here exactly the share asked for is mixed. Read in that
code. lambda and the images chosen are a function of (seed, step, sample).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.augment import mixup
from edgekd.distill.methods._base import Batch, Setup
from edgekd.distill.methods._counter import uniform
from edgekd.distill.methods._logits import LogitMethod, not_negative, share
from edgekd.distill.methods.kd import kd_loss, standardise
from edgekd.errors import ConfigError


class MixKD(LogitMethod):
    """Raises ConfigError in the first step where `distill.mixup` has mixed the images already."""

    def __init__(
        self, alpha: float = 0.9, gamma: float = 0.1, mixed: float = 0.1, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(label_smoothing)
        not_negative(self, alpha=alpha, gamma=gamma)
        share(self, mixed=mixed)
        self.alpha, self.gamma, self.mixed, self.seed = alpha, gamma, mixed, 0

    def prepare(self, setup: Setup) -> None:
        self.seed = setup.seed

    def transform_batch(self, batch: Batch, step: int) -> Batch:
        if batch.partners is not None:
            raise ConfigError("distill.mixup: mixkd mixes the images itself", "Set distill.mixup to 0.")
        choice, mix = uniform(self.seed, step, torch.from_numpy(batch.samples), 2).unbind(1)
        mix[choice.argsort()[round(self.mixed * len(choice)) :]] = 1.0
        pixels = mixup(batch.pixels, mix.numpy())
        return replace(batch, pixels=pixels, partners=batch.labels.flip(0), mix=mix.to(batch.labels.device))

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        own = standardise(student)
        ce = F.cross_entropy(own, batch.labels, reduction="none", label_smoothing=self.label_smoothing)
        if batch.partners is not None:
            others = F.cross_entropy(own, batch.partners, reduction="none", label_smoothing=self.label_smoothing)
            ce = batch.mix * ce + (1 - batch.mix) * others
        return {"ce": self.gamma * ce.mean(), "mixkd": self.alpha * kd_loss(student, teacher, 1.0, zscore=True)}
