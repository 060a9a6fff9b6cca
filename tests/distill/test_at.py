"""Attention transfer: values by hand, and what it does not see."""

from __future__ import annotations

import pytest
import torch
from making_features import batch, maps, one_tap, outputs, setup, side

from edgekd.distill.methods.at import AttentionTransfer, attention


def loss(student: torch.Tensor, teacher: torch.Tensor, **options: float) -> float:
    method = AttentionTransfer(**options)
    method.prepare(one_tap(student, teacher))
    return method.loss(*maps(student, teacher), batch(len(student)), 0)["at"].item()


def test_two_positions_by_hand() -> None:
    # squares (3, 4) and (4, 3) have norm 5: Q = (0.6, 0.8) and (0.8, 0.6), mean squared difference 0.04
    student = torch.tensor([[[[3**0.5, 2.0]]]])
    teacher = torch.tensor([[[[-2.0, 3**0.5]]]])
    assert loss(student, teacher) == pytest.approx(1000 * 0.04, rel=1e-5)
    assert loss(torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[4.0, 3.0]]]]), p=1, weight=1) == pytest.approx(0.04)


def test_channels_are_averaged_by_hand() -> None:
    two = torch.tensor([[[[1.0, 2.0]], [[5**0.5, 2.0]]]])  # mean squares (3, 4)
    assert torch.allclose(attention(two), torch.tensor([[0.6, 0.8]]))


def test_scale_sign_and_order_of_channels_do_not_matter() -> None:
    student, teacher = torch.randn(4, 6, 3, 3), torch.randn(4, 9, 3, 3)
    moved = loss(-3 * student[:, torch.randperm(6)], 0.1 * teacher)
    assert moved == pytest.approx(loss(student, teacher), rel=1e-4)
    assert loss(student, 2 * student) == pytest.approx(0, abs=1e-8)


def test_layers_add_up() -> None:
    network = side({"a": (3, 4, 4), "b": (5, 2, 2)})
    method = AttentionTransfer()
    method.prepare(setup(network, network))
    ours, theirs = outputs(network, 0), outputs(network, 1)
    each = [loss(ours.features[tap], theirs.features[tap]) for tap in ("a", "b")]
    assert method.loss(ours, theirs, batch(), 0)["at"].item() == pytest.approx(sum(each), rel=1e-5)
