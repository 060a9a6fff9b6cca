"""Scorer `grasp`: sum of -(H g) * W over all kernels, g the gradient and H the Hessian (Wang et al. 2020, eq. 8)."""

from __future__ import annotations

import torch
from torch import nn

from edgekd.search.scorers._network import NetworkScorer, kernels, loss_gradients


class Grasp(NetworkScorer):
    def measure(self, model: nn.Module) -> float:
        weights = kernels(model)
        gradients = loss_gradients(model, self.task.images, self.task.labels, differentiable=True)
        product = sum((g * g.detach()).sum() for g in gradients)
        assert isinstance(product, torch.Tensor)
        curvature = torch.autograd.grad(product, weights)  # d(g . const g)/dW = H g
        return -sum(float((h * w.detach()).sum()) for h, w in zip(curvature, weights, strict=True))
