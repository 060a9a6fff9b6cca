"""KD against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.distill.methods.kd import kd_loss


def test_two_class_value_by_hand() -> None:
    # teacher softmax([2, 0] / 2) = sigmoid(1); student is uniform: KL = log 2 - H(sigmoid(1)), times T^2 = 4
    p = 1 / (1 + math.exp(-1))
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    loss = kd_loss(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]]), temperature=2.0)
    assert loss.item() == pytest.approx(4 * (math.log(2) - entropy), rel=1e-6)


def test_gradient_is_the_difference_of_softmaxes() -> None:
    student, teacher = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    kd_loss(student, teacher, temperature=3.0).backward()
    expected = 3.0 * ((student / 3).softmax(1) - (teacher / 3).softmax(1)) / 5  # T^2 / T / B
    assert torch.allclose(student.grad, expected, atol=1e-6)


def test_zscore_ignores_scale_and_shift_of_the_teacher() -> None:
    student, teacher = torch.randn(4, 6), torch.randn(4, 6)
    moved = kd_loss(student, 3 * teacher + 5, zscore=True)
    assert moved.item() == pytest.approx(kd_loss(student, teacher, zscore=True).item(), rel=1e-4)
    assert kd_loss(student, 3 * student + 1, zscore=True).item() == pytest.approx(0, abs=1e-5)
