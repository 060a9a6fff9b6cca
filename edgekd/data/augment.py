"""Augmentation that can be replayed: pad, crop and flip drawn from a counter, mixing, and the input normalisation.

View v of sample i is a pure function of (seed, i, v): a hash stands where a stream of random numbers would, so any view
can be made again later, alone or in another batch, and teacher outputs can be stored for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Pixels = NDArray[np.uint8] | torch.Tensor  # [B, H, W, C] uint8, in memory or on a GPU

_U64 = np.uint64


@dataclass(frozen=True)
class Augment:
    """Crop at a uniform offset from the image padded by `pad` black pixels; mirror every other view if `flip`.

    Which of a sample's views are mirrored, the odd or the even, is drawn once: by chance the few views of a replay
    would often be of one kind (alternating flips: Jordan 2024, arXiv 2404.00498).
    """

    seed: int
    pad: int
    flip: bool

    def __call__(
        self, images: NDArray[np.uint8], samples: NDArray[np.integer], views: int | NDArray[np.integer]
    ) -> NDArray[np.uint8]:
        """images uint8 [B, H, W, C] of samples [B], each in its view (one for all, or [B]) -> uint8 [B, H, W, C]."""
        batch, height, width, channels = images.shape
        pad = self.pad
        top, left, mirrored = self.draws(samples, views)
        padded = np.zeros((batch, height + 2 * pad, width + 2 * pad, channels), np.uint8)
        padded[:, pad : pad + height, pad : pad + width] = images
        out = np.empty_like(images, order="C")
        for i, (y, x, mirror) in enumerate(zip(top.tolist(), left.tolist(), mirrored.tolist(), strict=True)):
            crop = padded[i, y : y + height, x : x + width]
            out[i] = crop[:, ::-1] if mirror else crop
        return out

    def on_device(
        self, images: torch.Tensor, samples: NDArray[np.integer], views: int | NDArray[np.integer]
    ) -> torch.Tensor:
        """The same views of `images[samples]`, cut out where the images [N, H, W, C] are: uint8 [B, H, W, C]."""
        _, height, width, _ = images.shape
        rows, top, left, mirrored = (
            torch.from_numpy(values).to(images.device)[:, None] for values in (samples, *self.draws(samples, views))
        )
        y = torch.arange(height, device=images.device) + top - self.pad  # [B, H]
        x = torch.arange(width, device=images.device)
        x = torch.where(mirrored, width - 1 - x, x) + left - self.pad  # [B, W]
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        crops = images[rows[:, :, None], y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]]
        return crops * inside[..., None]

    def draws(
        self, samples: NDArray[np.integer], views: int | NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """(top, left, mirrored), each [B]: offsets in 0..2*pad and whether to flip."""
        bits = _hash(self.seed, samples, views)
        offsets, mask, shift = _U64(2 * self.pad + 1), _U64((1 << 24) - 1), _U64(24)
        top = ((bits & mask) * offsets) >> shift  # 24 bits, scaled to the range: the bias is below 2**-20
        left = ((bits >> shift & mask) * offsets) >> shift
        first = _hash(self.seed, samples, 0) >> _U64(63)
        mirrored = ((first ^ np.asarray(views).astype(_U64)) & _U64(1)).astype(bool) & self.flip
        return top.astype(np.int64), left.astype(np.int64), mirrored


def normalise(images: Pixels, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(images / 255 - mean) / std: uint8 [B, H, W, C] -> float32 [B, C, H, W] in channels_last memory."""
    batch, height, width, channels = images.shape
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
    shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
    if not isinstance(images, torch.Tensor):
        images = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    # Tiled over one row, the broadcast is a long vector loop; over the channels alone it would be steps of three.
    rows = images.reshape(batch * height, width * channels).float()
    rows = rows.mul_(scale.float().repeat(width).to(rows.device)).add_(shift.float().repeat(width).to(rows.device))
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def mixup(images: Pixels, share: float | NDArray[np.float32]) -> Pixels:
    """Each image with the one opposite in the batch (Zhang et al. 2018): `share` of itself, uint8 [B, H, W, C].

    One share for all, or one each [B].
    """
    if isinstance(share, np.ndarray):
        share = share.reshape(-1, 1, 1, 1)
    if isinstance(images, torch.Tensor):
        own = torch.from_numpy(share).to(images.device) if isinstance(share, np.ndarray) else share
        mixed = own * images.float() + (1 - own) * images.flip(0).float()
        return mixed.round_().byte()
    weighted = share * images.astype(np.float32) + (1 - share) * images[::-1].astype(np.float32)
    return np.rint(weighted).astype(np.uint8)


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of `n` samples in an epoch: a permutation from (seed, epoch) alone, int64 [n]."""
    return np.random.default_rng([*b"order", seed, epoch]).permutation(n)


def _hash(seed: int, samples: ArrayLike, views: ArrayLike) -> NDArray[np.uint64]:
    """64 well-mixed bits for each (seed, sample, view)."""
    key = _mix(np.array([seed % (1 << 64)], _U64))
    key = _mix(key ^ np.asarray(samples).astype(_U64))
    return _mix(key ^ np.asarray(views).astype(_U64))


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of SplitMix64 (Steele et al. 2014): a bijection of 64 bits; the wrap-around is meant."""
    x = x + _U64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))
