"""Scorer `jacov`: how uncorrelated the input Jacobians of a batch are (Mellor et al. 2020, arXiv 2006.04647v1, eq. 2).

-sum_i [log(v_i + k) + 1 / (v_i + k)] over the eigenvalues v of the correlation matrix [B, B], k = 1e-5.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekd.search.scorers._network import NetworkScorer

K = 1e-5


class Jacov(NetworkScorer):
    def measure(self, model: nn.Module) -> float:
        images = self.task.images.clone().requires_grad_()
        (jacobian,) = torch.autograd.grad(model(images).sum(), images)
        values = torch.linalg.eigvalsh(torch.corrcoef(jacobian.flatten(1).double())).clamp(min=0) + K
        return -float((values.log() + 1 / values).sum())
