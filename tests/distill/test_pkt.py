"""PKT: two images by hand, and scale."""

from __future__ import annotations

import math

import pytest
import torch
from making_features import batch, embedded

from edgekd.distill.methods.pkt import ProbabilisticTransfer, neighbours


def loss(student: torch.Tensor, teacher: torch.Tensor) -> float:
    return ProbabilisticTransfer().loss(*embedded(student, teacher), batch(len(student)), 0)["pkt"].item()


def test_two_images_by_hand() -> None:
    # orthogonal images: kernel (1, 1/2), rows (2/3, 1/3); equal ones (1/2, 1/2): KL = log(9/8) / 2 a row, mean of 4
    student, teacher = torch.eye(2), torch.ones(2, 3)
    assert torch.allclose(neighbours(student), torch.tensor([[2 / 3, 1 / 3], [1 / 3, 2 / 3]]))
    assert loss(student, teacher) == pytest.approx(30000 * math.log(9 / 8) / 4, rel=1e-4)


def test_scale_changes_nothing() -> None:
    student, teacher = torch.randn(6, 5), torch.randn(6, 3)
    assert loss(0.2 * student, 7 * teacher) == pytest.approx(loss(student, teacher), rel=1e-3)
    assert loss(student, 3 * student) == pytest.approx(ProbabilisticTransfer.minimum, abs=1e-3)
