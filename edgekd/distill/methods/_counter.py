"""Random numbers as a pure function of (seed, step, sample): a resumed run or a reordered batch draws the same.

SplitMix64 (Steele et al. 2014) in int64, whose products wrap around as its mathematics wants; on whatever device the
samples are. `edgekd.data.augment` does the same for images in numpy.
"""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 53  # of each draw: what a double holds exactly


def draws(seed: int, step: int, samples: Tensor, n: int) -> Tensor:
    """`n` integers for each of `samples` [B], uniform in [0, 2^53): int64 [B, n]."""
    key = _mix(torch.tensor([_signed(seed)], device=samples.device))
    key = _mix(_mix(key ^ step) ^ samples)
    columns = torch.arange(n, device=samples.device)
    return _shift(_mix(key[:, None] ^ _mix(columns)), 64 - BITS)


def uniform(seed: int, step: int, samples: Tensor, n: int) -> Tensor:
    """`n` numbers for each of `samples` [B], uniform in [0, 1): float32 [B, n]."""
    return (draws(seed, step, samples, n) >> (BITS - 24)).float() / (1 << 24)


def _mix(x: Tensor) -> Tensor:
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, n: int) -> Tensor:
    """x >> n without copies of the sign bit."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def _signed(x: int) -> int:
    """The int64 with the bits of `x` modulo 2^64."""
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)
