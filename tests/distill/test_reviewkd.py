"""ReviewKD: the context loss and a fusion by hand, the ramp, and the order of the levels."""

from __future__ import annotations

import math

import pytest
import torch
from making_features import SLIM_CNN, WIDE_CNN, batch, outputs, setup, side
from torch import nn

from edgekd.distill.methods.reviewkd import Fusion, ReviewKD, hcl
from edgekd.errors import ConfigError


def test_context_loss_by_hand() -> None:
    # 2x2: squares 1, 1, 1, 25 have mean 7; pooled to 1 the difference is 2, its square counts half; over 1 + 1/2
    theirs = torch.tensor([[[[1.0, 1.0], [1.0, 5.0]]]])
    assert hcl(torch.zeros_like(theirs), theirs).item() == pytest.approx((7 + 4 / 2) / 1.5)
    # 8x8 of ones: every level differs by 1, whatever the weights
    assert hcl(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)).item() == pytest.approx(1)
    # one position: nothing to pool
    assert hcl(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 3.0)).item() == pytest.approx(9)


def test_fusion_by_hand() -> None:
    fusion = Fusion(1, 1, 1)
    fusion.enter, fusion.leave = nn.Identity(), nn.Identity()
    nn.init.zeros_(fusion.attend.weight)
    fusion.attend.bias.data = torch.tensor([-100.0, math.log(3)])  # shares 0 and 3/4
    ours = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    y, on = fusion(ours, torch.full((1, 1, 1, 1), 8.0), torch.Size((4, 4)))
    assert torch.allclose(y, torch.full((1, 1, 4, 4), 6.0)) and torch.equal(on, y)
    y, _ = fusion(ours, None, torch.Size((2, 2)))
    assert torch.equal(y, ours)


def test_the_weight_grows_over_the_warm_up() -> None:
    student, teacher = side(SLIM_CNN), side(WIDE_CNN)
    method = ReviewKD(warmup=0.4)
    method.prepare(setup(student, teacher, steps=10))
    ours, theirs = outputs(student, 0), outputs(teacher, 1)
    value = [method.loss(ours, theirs, batch(), step)["reviewkd"].item() for step in (0, 1, 3, 9)]
    assert [v / value[-1] for v in value] == pytest.approx([0.25, 0.5, 1, 1])
    with pytest.raises(ConfigError, match="distill.method reviewkd: warmup is 20"):
        ReviewKD(warmup=20)


def test_deep_levels_reach_up_and_shallow_ones_do_not_reach_down() -> None:
    student, teacher = side(SLIM_CNN), side(WIDE_CNN)
    method = ReviewKD()
    method.prepare(setup(student, teacher))
    ours, theirs = outputs(student, 0, grad=True), outputs(teacher, 1)
    for level, fusion in enumerate(method.fusions[:-1]):
        fusion.seen = []  # type: ignore[assignment]
        fusion.register_forward_hook(lambda f, _i, out: f.seen.append(out[0]))
        method.loss(ours, theirs, batch(), 0)
        reached = torch.autograd.grad(
            fusion.seen[0].square().sum(), [ours.features[p.student] for p in method.pairs], allow_unused=True
        )
        assert [g is not None for g in reached] == [i >= level for i in range(3)]
