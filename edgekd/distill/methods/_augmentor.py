"""A small network that chooses how each image is turned, moved, zoomed and coloured; differentiable; see `hard`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NOISE = 8  # random numbers of each image, so that one image is changed in many ways

BOUNDS = {  # the most that may be done, at strength 1
    "angle": math.pi / 9,  # 20 degrees
    "shear": 0.2,
    "zoom": 0.3,  # log of the scale, in and out: above 0 a crop
    "x": 0.2,  # of the image's half width
    "y": 0.2,
    "brightness": 0.2,
    "contrast": 0.4,  # log
    "saturation": 0.6,  # log; nothing to a grey image
}


class Augmentor(nn.Module):
    """images [B, C, H, W] in [0, 1] and noise [B, NOISE] in [0, 1) -> images."""

    def __init__(self, channels: int, strength: float) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(channels, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.head = nn.Sequential(nn.Linear(32 + NOISE, 64), nn.ReLU(), nn.Linear(64, len(BOUNDS)))
        self.strength = strength

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        given = torch.cat([self.encoder(images), 2 * noise - 1], 1)
        bounds = self.strength * torch.tensor(list(BOUNDS.values()), device=images.device)
        return changed(images, bounds * self.head(given).tanh())


def changed(images: Tensor, amounts: Tensor) -> Tensor:
    """`images` [B, C, H, W] in [0, 1] by `amounts` [B, 8], in the order of BOUNDS; all 0 changes nothing."""
    angle, shear, zoom, x, y, brightness, contrast, saturation = amounts.unbind(1)
    cos, sin, scale = angle.cos(), angle.sin(), (-zoom).exp()
    rows = [scale * cos, scale * (shear * cos - sin), x, scale * sin, scale * (shear * sin + cos), y]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    grey = moved.mean(1, keepdim=True)
    coloured = grey + _each(saturation.exp()) * (moved - grey)
    mean = coloured.mean((1, 2, 3), keepdim=True)
    return (mean + _each(contrast.exp()) * (coloured - mean) + _each(brightness)).clamp(0, 1)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
