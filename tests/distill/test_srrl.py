"""SRRL: both terms by hand; the teacher's classifier stays as it is."""

from __future__ import annotations

import pytest
import torch
from making_features import SLIM_CNN, WIDE_CNN, batch, detached, outputs, setup, side
from torch import nn

from edgekd.distill.methods._base import Outputs
from edgekd.distill.methods.srrl import SoftmaxRegression


def test_values_by_hand() -> None:
    method = SoftmaxRegression()
    method.classifier = (nn.Linear(2, 2, bias=False),)
    method.classifier[0].weight.data = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    student = Outputs(torch.zeros(1, 2), None, torch.tensor([[3.0, 1.0]]))
    teacher = Outputs(torch.tensor([[1.0, 0.0]]), None, torch.tensor([[1.0, 0.0]]))  # its logits: W (1, 0) = (1, 0)
    terms = method.loss(student, teacher, batch(1), 0)
    assert terms["srrl_feature"].item() == pytest.approx((4 + 1) / 2)
    assert terms["srrl_logits"].item() == pytest.approx(((4 - 1) ** 2 + 2**2) / 2)  # W (3, 1) = (4, 2)


def test_a_perfect_adapter_gives_the_teachers_logits() -> None:
    network = side(WIDE_CNN)
    method = SoftmaxRegression()
    method.prepare(setup(network, network))
    method.adapter = nn.Identity()
    given = outputs(network, 0)
    assert sum(method.loss(given, given, batch(), 0).values()).item() == pytest.approx(method.minimum, abs=1e-10)


def test_the_classifier_is_neither_trained_nor_stored_nor_the_teachers_own() -> None:
    teacher = side(WIDE_CNN)
    method = SoftmaxRegression()
    method.prepare(setup(side(SLIM_CNN), teacher))
    assert {name.split(".")[0] for name in method.state_dict()} == {"adapter"}
    sum(method.loss(outputs(side(SLIM_CNN), 0), detached(outputs(teacher, 1)), batch(), 0).values()).backward()
    assert teacher.classifier.weight.grad is None and method.classifier[0].weight.grad is None
