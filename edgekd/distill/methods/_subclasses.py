"""Directions that split classes into subclasses, from embeddings; see `lelp`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.errors import ConfigError


@torch.no_grad()
def directions(h: Tensor, groups: Tensor, weight: Tensor, subclasses: int, seed: int) -> tuple[Tensor, Tensor]:
    """(U [C, D, S], offsets U^T m [C, S]) of embeddings `h` [N, D], scaled to scores of mean square 1 in their class.

    The directions lie in the null space of `weight` [C, D], so scores are taken of embeddings as they are. Raises
    ConfigError for a class with too few images or none but equal ones.
    """
    h, weight = h.double(), weight.double().to(h.device)
    h = h - h @ torch.linalg.pinv(weight) @ weight
    generator = torch.Generator().manual_seed(seed)
    rotations = torch.randn(len(weight), subclasses, subclasses, generator=generator).double()
    us, offsets = [], []
    for c, rotation in enumerate(torch.linalg.qr(rotations)[0].to(h.device)):
        own = h[groups == c]
        mean = own.sum(0) / max(1, len(own))
        values, vectors = torch.linalg.eigh((own - mean).T @ (own - mean) / max(1, len(own)))
        if len(own) <= subclasses or values[-subclasses] <= 1e-9 * values[-1]:
            found = f"{len(own)} images, too few or too alike for {subclasses} subclasses"
            raise ConfigError(f"distill.method lelp: class {c} has {found}", "Lower subclasses, or add images.")
        us.append(vectors[:, -subclasses:] @ rotation / values[-subclasses:].mean().sqrt())
        offsets.append(mean @ us[-1])
    return torch.stack(us).float(), torch.stack(offsets).float()


def half_entropy(scores: Tensor) -> float:
    """The beta at which softmax(scores / beta) [N, S] has on average half the entropy of S equal ones."""
    low, high = 1e-4, 1e4
    for _ in range(60):
        beta = math.sqrt(low * high)
        log_p = F.log_softmax(scores / beta, 1)
        too_low = -(log_p.exp() * log_p).sum(1).mean() < 0.5 * math.log(scores.shape[1])
        low, high = (beta, high) if too_low else (low, beta)
    return beta
