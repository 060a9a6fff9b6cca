"""Scorer `zico`: sum over layers of log sum_w mean|g| / std(g), over several batches (Li et al. 2023, eq. 5)."""

from __future__ import annotations

import math

import torch
from torch import nn

from edgekd.search.scorers._network import NetworkScorer, loss_gradients

BATCHES = 4


class Zico(NetworkScorer):
    def measure(self, model: nn.Module) -> float:
        parts = zip(self.task.images.chunk(BATCHES), self.task.labels.chunk(BATCHES), strict=True)
        layers = zip(*(loss_gradients(model, images, labels) for images, labels in parts), strict=True)
        total = 0.0
        for gradients in layers:
            stacked = torch.stack(gradients)
            mean, std = stacked.abs().mean(0), stacked.std(0)
            live = std > 0
            total += math.log(float((mean[live] / std[live]).sum()) + 1e-12)
        return total
