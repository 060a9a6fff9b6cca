"""Scorer `synflow`: log of the sum of W * dR/dW with R the output of the network of absolute weights on ones.

Tanaka et al. 2020, eq. 3. No data; BatchNorm stays the identity (Abdelfattah et al. 2021), since batch statistics would
cancel what the score measures. In double: the product of all layers leaves float's range.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from edgekd.search.scorers._network import NetworkScorer, kernels


class Synflow(NetworkScorer):
    def measure(self, model: nn.Module) -> float:
        model.eval().double()  # a fresh BatchNorm's running statistics are mean 0 and variance 1
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_()
        weights = kernels(model)
        ones = torch.ones(1, *self.task.images.shape[1:], dtype=torch.float64)
        gradients = torch.autograd.grad(model(ones).sum(), weights)
        return math.log(sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True)))
