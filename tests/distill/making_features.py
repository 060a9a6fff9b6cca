"""Dry runs and random outputs of made-up networks, for the tests of methods that see features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.distill.methods._base import Batch, Outputs, Setup, Side

CLASSES = 5
WIDE_CNN = {"layer1": (8, 8, 8), "layer2": (16, 4, 4), "layer3": (24, 2, 2)}
SLIM_CNN = {"stem": (4, 16, 16), "stage1": (4, 8, 8), "stage2": (6, 4, 4), "stage3": (12, 4, 4)}
VIT = {"blocks.1": (17, 12), "blocks.3": (17, 12)}
DISTILLED_VIT = {"blocks.1": (18, 12), "blocks.3": (18, 12)}


def side(shapes: dict[str, tuple[int, ...]], classes: int = CLASSES) -> Side:
    """The embedding is as wide as the last tap: its mean for a map, its first token for tokens."""
    last = list(shapes.values())[-1]
    width = last[0] if len(last) == 3 else last[1]
    return Side(shapes, width, nn.Linear(width, classes))


def setup(
    student: Side,
    teacher: Side | None,
    labels: Sequence[int] = tuple(i % CLASSES for i in range(40)),
    steps: int = 10,
) -> Setup:
    return Setup(student, teacher, CLASSES, torch.tensor(labels), 3, steps)


def outputs(network: Side, seed: int, images: int = 8, grad: bool = False) -> Outputs:
    """Random features, rectified as after a ReLU where they are maps; embeddings and logits follow from the last."""
    generator = torch.Generator().manual_seed(seed)
    features = {}
    for tap, shape in network.shapes.items():
        x = torch.randn(images, *shape, generator=generator)
        features[tap] = (x.relu() if x.ndim == 4 else x).requires_grad_(grad)
    last = list(features.values())[-1]
    embedding = last.mean((2, 3)) if last.ndim == 4 else last[:, 0]
    logits = network.classifier(embedding)
    if last.ndim == 3 and last.shape[1] == 18:  # a second head reads the distillation token
        logits = (logits + last[:, 1, :CLASSES]) / 2
    return Outputs(logits, features, embedding)


def detached(given: Outputs) -> Outputs:
    assert given.features is not None and given.embeddings is not None
    return Outputs(given.logits.detach(), {k: v.detach() for k, v in given.features.items()}, given.embeddings.detach())


def batch(images: int = 8, samples: Sequence[int] | None = None) -> Batch:
    """Samples 0, 1, ... of the labels that `setup` has by default."""
    rows = np.arange(images) if samples is None else np.array(samples)
    return Batch(np.zeros((len(rows), 4, 4, 3), np.uint8), torch.from_numpy(rows % CLASSES), rows, 0)


def maps(student: Tensor, teacher: Tensor) -> tuple[Outputs, Outputs]:
    """Outputs with one tap `x` on either side, its maps [B, C, H, W] as given."""
    logits = torch.zeros(len(student), CLASSES)
    return Outputs(logits, {"x": student}), Outputs(logits, {"x": teacher})


def embedded(student: Tensor, teacher: Tensor) -> tuple[Outputs, Outputs]:
    """Outputs with embeddings [B, D] as given."""
    logits = torch.zeros(len(student), CLASSES)
    return Outputs(logits, None, student), Outputs(logits, None, teacher)


def one_tap(student: Tensor, teacher: Tensor) -> Setup:
    """The setup that fits `maps(student, teacher)`."""
    return setup(side({"x": tuple(student.shape[1:])}), side({"x": tuple(teacher.shape[1:])}))
