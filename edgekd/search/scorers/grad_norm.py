"""Scorer `grad_norm`: sum over layers of ||dL/dW||_2 on one batch (Abdelfattah et al. 2021, section 3.2)."""

from __future__ import annotations

from torch import nn

from edgekd.search.scorers._network import NetworkScorer, loss_gradients


class GradNorm(NetworkScorer):
    def measure(self, model: nn.Module) -> float:
        return sum(float(g.norm()) for g in loss_gradients(model, self.task.images, self.task.labels))
