"""Scorer `cka`: linear CKA between the embeddings of the trained teacher and of a random student on one batch.

Kornblith et al. 2019, eq. 9 with the unbiased estimator of HSIC (Nguyen et al. 2021, eq. 3): the plain one is near 1
for any pair when the batch is smaller than the width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgekd.models import build_model
from edgekd.search.scorers import ScoringTask
from edgekd.search.scorers._network import NetworkScorer
from edgekd.search.scorers.diswot import trace


class Cka(NetworkScorer):
    """Raises ModelError when the teacher has no classifier."""

    def __init__(self, task: ScoringTask) -> None:
        super().__init__(task)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # building draws from the global generator
            self.teacher = trace(build_model(task.teacher), task.images, task.teacher)[1]

    @torch.no_grad()
    def measure(self, model: nn.Module) -> float:
        return linear_cka(self.teacher, trace(model, self.task.images, self.task.teacher)[1])


def linear_cka(a: Tensor, b: Tensor) -> float:
    """Similarity of embeddings [B, C_a] and [B, C_b] of the same images: 1 when equal up to rotation and scale."""
    a, b = (x.double() @ x.double().T for x in (a, b))
    own = math.sqrt(max(_hsic(a, a) * _hsic(b, b), 1e-24))
    return _hsic(a, b) / own


def _hsic(a: Tensor, b: Tensor) -> float:
    """Unbiased HSIC of two Grams [B, B] (Song et al. 2012, eq. 4)."""
    n = len(a)
    a, b = (x - torch.diag(x.diag()) for x in (a, b))
    cross = a @ b
    total = cross.trace() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * cross.sum() / (n - 2)
    return float(total) / (n * (n - 3))
