"""Mimic: a mean squared error by hand, and an adapter that a linear teacher can be reached with."""

from __future__ import annotations

import pytest
import torch
from making_features import SLIM_CNN, WIDE_CNN, batch, embedded, setup, side
from torch import nn

from edgekd.distill.methods.mimic import Mimic


def test_value_by_hand() -> None:
    method = Mimic()
    method.adapter = nn.Identity()
    terms = method.loss(*embedded(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 2.0]])), batch(1), 0)
    assert terms["mimic"].item() == pytest.approx((9 + 0) / 2)


def test_a_teacher_linear_in_the_student_is_reached() -> None:
    method = Mimic()
    method.prepare(setup(side(SLIM_CNN), side(WIDE_CNN)))
    weight, bias = torch.randn(24, 12), torch.randn(24)
    method.adapter.weight.data, method.adapter.bias.data = weight, bias
    student = torch.randn(8, 12)
    terms = method.loss(*embedded(student, student @ weight.T + bias), batch(), 0)
    assert terms["mimic"].item() == pytest.approx(Mimic.minimum, abs=1e-10)
