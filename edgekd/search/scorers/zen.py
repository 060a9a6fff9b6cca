"""Scorer `zen`: log of how far a small step of a Gaussian input moves the last feature map (Lin et al. 2021, eq. 3).

Batch statistics hide the gain of every layer, so the log of each BatchNorm's standard deviation is added back. The
paper takes residual connections out first; here they stay, since all candidates of a space have them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgekd.search.scorers._network import NetworkScorer, gaussian_init
from edgekd.search.scorers.diswot import trace

STEP = 0.01


class Zen(NetworkScorer):
    @torch.no_grad()
    def measure(self, model: nn.Module) -> float:
        gaussian_init(model, self.generator)
        gains: list[float] = []

        def gain(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            gains.append(0.5 * math.log(float(inputs[0].transpose(0, 1).flatten(1).var(1).mean())))

        start, step = (torch.randn(self.task.images.shape, generator=self.generator) for _ in range(2))
        moved = trace(model, start + STEP * step, self.task.teacher)[2]
        hooks = [
            module.register_forward_pre_hook(gain)
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase)
        ]
        rest = trace(model, start, self.task.teacher)[2]
        for hook in hooks:
            hook.remove()
        return math.log(float((moved - rest).abs().flatten(1).sum(1).mean())) + sum(gains)
