"""Image classification: cross-entropy, top-1, logits [N, K]."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.augment import normalise


def hard_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of `logits` [B, K] against `labels` [B], of those that have one (not -1)."""
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing, ignore_index=-1)


def top1(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of rows of `logits` [N, K] whose largest entry is at the label, in [0, 1]."""
    return float((logits.argmax(1) == labels).mean())


@torch.no_grad()
def predict_torch(
    model: nn.Module,
    images: NDArray[np.uint8],  # [N, H, W, C]
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int = 250,
) -> NDArray[np.float32]:
    """Logits [N, K] of a torch model in eval mode, on the device that holds it."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    rows = [
        model(normalise(images[i : i + batch_size], mean, std).to(device)).float().cpu().numpy()
        for i in range(0, len(images), batch_size)
    ]
    return np.concatenate(rows)
