"""Scorer `snip`: sum of |W * dL/dW| over all kernels on one batch (Lee et al. 2019, eq. 4, summed over the network)."""

from __future__ import annotations

from torch import nn

from edgekd.search.scorers._network import NetworkScorer, kernels, loss_gradients


class Snip(NetworkScorer):
    def measure(self, model: nn.Module) -> float:
        gradients = loss_gradients(model, self.task.images, self.task.labels)
        return sum(float((w.detach() * g).abs().sum()) for w, g in zip(kernels(model), gradients, strict=True))
