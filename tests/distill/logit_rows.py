"""Two rows whose softmax is made of small fractions, and a method run on rows as the trainer runs it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup, Side

STUDENT = torch.tensor([[4.0, 2, 1, 1]]).log()  # softmax 1/2 1/4 1/8 1/8
TEACHER = torch.tensor([[1.0, 4, 2, 1]]).log()  # softmax 1/8 1/2 1/4 1/8


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def random_rows(n: int = 6, k: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits [n, k] and labels [n] that hold every class."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(n, k, generator=generator) for _ in range(2))
    return student, teacher, torch.arange(n) % k


def prepared(
    method: Method, num_classes: int = 4, samples: int = 60, teacher: Side | None = None, steps: int = 10
) -> Method:
    student = Side({}, 3, nn.Linear(3, num_classes))
    method.prepare(Setup(student, teacher, num_classes, torch.arange(samples) % num_classes, 0, steps))
    return method


def run(method: Method, student: Tensor, teacher: Tensor, labels: Tensor, step: int = 0) -> dict[str, Tensor]:
    batch = Batch(np.zeros((len(labels), 4, 4, 3), np.uint8), labels, np.arange(len(labels)), 0)
    return method.loss(Outputs(student), Outputs(teacher), batch, step)
