"""Scorers `az_expressivity`, `az_progressivity` and `az_trainability` (Lee and Ham 2024, sections 3.2.1 to 3.2.3).

On one Gaussian batch, with f_l the output of block l:

- expressivity: sum over blocks of the entropy of the normalised eigenvalues of the covariance [C, C] of f_l;
- progressivity: the smallest increase of that entropy from one block to the next;
- trainability: mean over blocks of 2 - s - 1/s, s the largest singular value of the block's backward map between
  channels, probed with random signs. At s = 1 gradients neither vanish nor explode.

The paper's fourth term, complexity, is the scorer `macs`.
"""

from __future__ import annotations

import itertools
import statistics

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.search.scorers._network import NetworkScorer, block_passes


class _Az(NetworkScorer):
    def inputs(self) -> Tensor:
        return torch.randn(self.task.images.shape, generator=self.generator)


class Expressivity(_Az):
    def measure(self, model: nn.Module) -> float:
        return sum(_entropies(model, self.inputs()))


class Progressivity(_Az):
    def measure(self, model: nn.Module) -> float:
        entropies = _entropies(model, self.inputs())
        return min((b - a for a, b in itertools.pairwise(entropies)), default=0.0)


class Trainability(_Az):
    def measure(self, model: nn.Module) -> float:
        terms = []
        for _, before, after in block_passes(model, self.inputs()):
            signs = torch.randint(0, 2, after.shape, generator=self.generator).mul_(2).sub_(1).to(after)
            (backward,) = torch.autograd.grad(after, before, signs, retain_graph=True)
            s = float(torch.linalg.matrix_norm(channel_map(signs, backward), 2))
            terms.append(2 - s - 1 / (s + 1e-6))
        return statistics.fmean(terms)


def channel_rows(features: Tensor) -> Tensor:
    """Maps [B, C, H, W] or tokens [B, N, C] as one row a channel: [C, positions]."""
    return features.flatten(0, 1).T if features.ndim == 3 else features.transpose(0, 1).flatten(1)


def channel_map(after: Tensor, before: Tensor) -> Tensor:
    """Mean over positions of after^T before, [C_out, C_in]; behind a stride, on the grid of the output."""
    if before.ndim == 4 and before.shape[2:] != after.shape[2:]:
        before = F.adaptive_avg_pool2d(before, (after.shape[2], after.shape[3]))
    rows = [channel_rows(x) for x in (after, before)]
    return rows[0] @ rows[1].T / rows[0].shape[1]


def spectral_entropy(features: Tensor) -> float:
    """Entropy of the normalised eigenvalues of the features' channel covariance, in nats: log C when isotropic."""
    rows = channel_rows(features)
    values = torch.linalg.eigvalsh(torch.cov(rows.double()).view(len(rows), len(rows))).clamp(min=0)
    share = values / values.sum().clamp(min=1e-24)
    return float(-(share * (share + 1e-12).log()).sum())


def _entropies(model: nn.Module, images: Tensor) -> list[float]:
    with torch.no_grad():
        return [spectral_entropy(after) for _, _, after in block_passes(model, images)]
