"""OFA-KD: the adaptive target by hand, and the exits of maps and tokens."""

from __future__ import annotations

import math

import pytest
import torch
from making_features import CLASSES, DISTILLED_VIT, SLIM_CNN, VIT, WIDE_CNN, batch, outputs, setup, side
from torch.nn import functional as F

from edgekd.distill.methods.ofakd import OneForAll, TokenExit, ofa_loss


def test_adaptive_target_by_hand() -> None:
    # p = (1/2, 1/2), label 0, eps 2: ((3/2)^2 - 1) + (1/2)^2 = 3/2 times log 2 for a uniform student
    label, even = torch.tensor([0]), torch.zeros(1, 2)
    assert ofa_loss(even, even, label, eps=2.0).item() == pytest.approx(1.5 * math.log(2), rel=1e-6)


def test_at_eps_one_it_is_the_cross_entropy_with_the_teacher() -> None:
    student, teacher, labels = torch.randn(6, CLASSES), torch.randn(6, CLASSES), torch.arange(6) % CLASSES
    expected = F.cross_entropy(student / 2, (teacher / 2).softmax(1))
    assert ofa_loss(student, teacher, labels, temperature=2.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_larger_eps_asks_more_of_the_label() -> None:
    student, teacher = torch.zeros(1, 3, requires_grad=True), torch.tensor([[2.0, 1.0, 0.0]])
    pull = []
    for eps in (1.0, 1.5):
        loss = ofa_loss(student, teacher, torch.tensor([1]), eps=eps)
        pull.append(-torch.autograd.grad(loss, student)[0][0, 1].item())
    assert pull[1] > pull[0]


def test_exits_of_maps_halve_once_for_each_stage_that_follows() -> None:
    method = OneForAll()
    method.prepare(setup(side(SLIM_CNN), side(WIDE_CNN)))
    given = outputs(side(SLIM_CNN), 0)
    for after, branch, x in zip((3, 2, 1, 0), method.branches, given.features.values(), strict=True):
        assert branch(x).shape == (8, CLASSES)
        assert branch[:-3](x).shape[1:] == (12, max(1, x.shape[2] >> after), max(1, x.shape[3] >> after))


def test_exits_of_tokens_read_the_class_token_or_the_mean() -> None:
    exit_ = TokenExit(8, 1, CLASSES)
    exit_.blocks = torch.nn.Sequential()
    tokens = torch.randn(2, 17, 8)
    assert torch.allclose(exit_(tokens), exit_.head(tokens[:, 0]))
    assert torch.allclose(exit_(tokens[:, 1:]), exit_.head(tokens[:, 1:].mean(1)))


@pytest.mark.parametrize("shapes", [SLIM_CNN, VIT, DISTILLED_VIT])
def test_no_teacher_feature_is_needed(shapes) -> None:
    student = side(shapes)
    method = OneForAll()
    method.prepare(setup(student, None))
    teacher = outputs(side(WIDE_CNN), 1)
    terms = method.loss(outputs(student, 0), type(teacher)(teacher.logits), batch(), 0)
    assert set(terms) == {"ofakd_logits", "ofakd_exits"}
