"""What a training config means on these data and this machine: augmentation, precision, optimizer, learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekd.config import TrainConfig
from edgekd.data import Dataset
from edgekd.data.augment import Augment, epoch_order
from edgekd.data.loader import Plan
from edgekd.distill.muon import Muon
from edgekd.profile.machine import has_bf16


def augmentation(config: TrainConfig, data: Dataset, seed: int) -> Augment:
    """Pad-crop by an eighth of the image and flips where the data allows them, unless the config says otherwise."""
    pad = data.input_shape[1] // 8 if config.pad is None else config.pad
    return Augment(seed, pad, data.flips if config.flip is None else config.flip)


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """bf16 where the processor computes in it: emulated bf16 convolutions are ten times slower than fp32."""
    if config.precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else has_bf16()
        return torch.bfloat16 if fast else None
    return torch.bfloat16 if config.precision == "bf16" else None


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up to the peak, then a cosine to zero at the last step."""
    warm, total = round(config.warmup_epochs * steps_per_epoch), config.epochs * steps_per_epoch
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Weight decay on matrices and kernels only; biases and BatchNorm have one dimension."""
    trained = [p for p in parameters if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "muon":
        return Muon(groups, lr=config.lr)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)


def epoch_plan(config: TrainConfig, n: int, seed: int, epoch: int, views: int | None) -> Plan:
    """Samples and views of each step of an epoch over `n` images; `views` is how many of an image are stored.

    With c crops an image enters a batch c times, and c epochs make one pass: after any c of them every image has been
    seen in as many views as without.
    """
    crops, size = config.crops, config.batch_size
    images, steps = min(size, n) // crops, max(1, n // size)
    turn, block = divmod(epoch, crops)
    order = epoch_order(n, seed, turn)[block * steps * images :]
    parts = [order[step * images : (step + 1) * images] for step in range(steps)]
    seen = turn * crops + np.arange(crops)
    if views is not None:
        seen %= views
    if crops == 1:
        return [(samples, int(seen[0])) for samples in parts]
    return [(np.repeat(samples, crops), np.tile(seen, images)) for samples in parts]
