"""KD against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from logit_rows import prepared, random_rows, run

from edgekd.distill.methods.kd import KD, kd_loss
from edgekd.errors import ConfigError


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


@pytest.mark.parametrize(
    ("anneal", "middle"), [("linear", 8 - 0.25 * 7), ("cosine", 8 - 7 * (1 - math.cos(math.pi / 4)) / 2)]
)
def test_temperature_moves_over_its_share_of_the_run(anneal: str, middle: float) -> None:
    method = KD(temperature=8.0, temperature_end=1.0, anneal_share=0.5, anneal=anneal)
    prepared(method, num_classes=5, steps=80)
    assert [method.temperature_at(step) for step in (0, 10, 40, 79)] == pytest.approx([8, middle, 1, 1])
    student, teacher, labels = random_rows()
    kd = run(method, student, teacher, labels, step=10)["kd"]
    assert kd.item() == pytest.approx(0.9 * kd_loss(student, teacher, middle).item(), rel=1e-6)


def test_temperature_moves_over_the_whole_run_by_default() -> None:
    method = KD(temperature=8.0, temperature_end=2.0)
    prepared(method, steps=30)
    assert [method.temperature_at(step) for step in (0, 10, 15, 20)] == pytest.approx([8, 6.5, 5, 3.5])  # cos 60 = 1/2


def test_temperature_stays_without_a_schedule() -> None:
    student, teacher, labels = random_rows()
    terms = run(prepared(KD(temperature=3.0, alpha=0.4)), student, teacher, labels, step=9)
    assert terms["kd"].item() == pytest.approx(0.4 * kd_loss(student, teacher, 3.0).item(), rel=1e-6)
    assert terms["ce"].item() == pytest.approx(0.6 * torch.nn.functional.cross_entropy(student, labels).item())


@pytest.mark.parametrize(
    "options",
    [{"anneal_share": 0.5}, {"anneal": "linear"}, {"anneal": "step"}, {"temperature_end": 0}],
)
def test_half_a_schedule_is_an_error(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="distill.method kd: (temperature_end|anneal)"):
        KD(**options)


def test_zscore_has_the_authors_weights() -> None:
    student, teacher, labels = random_rows()
    terms = run(prepared(KD(zscore=True)), student, teacher, labels)
    assert terms["kd"].item() == pytest.approx(9 * kd_loss(student, teacher, 2.0, zscore=True).item(), rel=1e-6)
    assert terms["ce"].item() == pytest.approx(0.1 * torch.nn.functional.cross_entropy(student, labels).item())
    assert KD(temperature=4.0, zscore=True).temperature == KD().temperature == 4.0
