"""CWD: two positions by hand, and what a channel's softmax does not see."""

from __future__ import annotations

import math

import pytest
import torch
from making_features import batch, maps, one_tap
from torch import nn

from edgekd.distill.methods.cwd import ChannelWiseKD
from edgekd.errors import ConfigError


def loss(student: torch.Tensor, teacher: torch.Tensor, **options: float) -> float:
    method = ChannelWiseKD(**options)
    method.prepare(one_tap(student, teacher))
    return method.loss(*maps(student, teacher), batch(len(student)), 0)["cwd"].item()


def test_two_positions_by_hand() -> None:
    # channel 0: softmax (2, 0) / 2 = sigmoid(1) against a uniform student; channel 1 agrees; T^2 = 4, mean of the two
    p = 1 / (1 + math.exp(-1))
    divergence = math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)
    student = torch.tensor([[[[0.0, 0.0]], [[3.0, 1.0]]]])
    teacher = torch.tensor([[[[2.0, 0.0]], [[3.0, 1.0]]]])
    assert loss(student, teacher, weight=1.0, temperature=2.0) == pytest.approx(4 * divergence / 2, rel=1e-5)


def test_a_shift_of_a_channel_changes_nothing() -> None:
    student, teacher = torch.randn(3, 4, 5, 5), torch.randn(3, 4, 5, 5)
    shift = torch.randn(1, 4, 1, 1)
    assert loss(student + shift, teacher - shift) == pytest.approx(loss(student, teacher), rel=1e-4)
    assert loss(student, student + shift) == pytest.approx(ChannelWiseKD.minimum, abs=1e-4)


def test_channels_are_aligned_where_they_differ() -> None:
    method = ChannelWiseKD()
    method.prepare(one_tap(torch.zeros(1, 3, 2, 2), torch.zeros(1, 5, 2, 2)))
    assert isinstance(method.align, nn.Conv2d)


def test_a_tap_of_one_position_is_refused() -> None:
    with pytest.raises(ConfigError, match="tap x has one position"):
        loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 1, 1))
