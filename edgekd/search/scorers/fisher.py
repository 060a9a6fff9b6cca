"""Scorer `fisher`: sum over layers and channels of mean_n (sum_hw a * dL/da)^2 / 2, a the layer's output.

Theis et al. 2018, eq. 5, as Turner et al. 2020 use it to score a network without training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.search.scorers._network import NetworkScorer


class Fisher(NetworkScorer):
    def measure(self, model: nn.Module) -> float:
        outputs: list[Tensor] = []
        for module in model.modules():
            if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
                module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        loss = F.cross_entropy(model(self.task.images), self.task.labels)
        total = 0.0
        for output, gradient in zip(outputs, torch.autograd.grad(loss, outputs), strict=True):
            saliency = (output.detach() * gradient).flatten(2).sum(2) if output.ndim > 2 else output.detach() * gradient
            total += float(saliency.square().mean(0).sum()) / 2
        return total
