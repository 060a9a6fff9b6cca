"""VID: the Gaussian's value by hand, and the variance it wants."""

from __future__ import annotations

import math

import pytest
import torch
from making_features import batch, maps, one_tap
from torch import nn

from edgekd.distill.methods.vid import VariationalInformation


def prepared(student: torch.Tensor, teacher: torch.Tensor, **options: float) -> VariationalInformation:
    method = VariationalInformation(**options)
    method.prepare(one_tap(student, teacher))
    method.models[0].mean = nn.Identity()
    return method


def test_an_error_of_two_at_variance_five_by_hand() -> None:
    student, teacher = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0)
    terms = prepared(student, teacher).loss(*maps(student, teacher), batch(1), 0)
    assert terms["vid"].item() == pytest.approx(0.5 * (4 / 5 + math.log(5)), rel=1e-5)


def test_the_best_variance_is_the_squared_error_of_its_channel() -> None:
    student, teacher = torch.zeros(2, 2, 3, 3), torch.tensor([1.0, 3.0]).view(1, 2, 1, 1).expand(2, 2, 3, 3)
    for variance, best in ((1.0, 0), (9.0, 1)):
        method = prepared(student, teacher, variance=variance)
        method.loss(*maps(student, teacher), batch(2), 0)["vid"].backward()
        gradient = method.models[0].raw.grad
        assert gradient[best].item() == pytest.approx(0, abs=1e-6) and gradient[1 - best].abs() > 1e-3
