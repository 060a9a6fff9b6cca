"""MLKD by hand on fractions, and each level blind to what the others see."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from logit_rows import STUDENT, TEACHER, prepared, random_rows, run, softmax

from edgekd.distill.methods.kd import kd_loss
from edgekd.distill.methods.mlkd import MLKD, gram_loss
from edgekd.errors import ConfigError


def test_gram_by_hand() -> None:
    # the identity against all halves: entries differ by 1/2 on and off the diagonal
    assert gram_loss(torch.eye(2), torch.full((2, 2), 0.5)).item() == pytest.approx(4 * 0.25 / 2)


def test_levels_by_hand() -> None:
    terms = run(prepared(MLKD(temperatures=[1], kd_weight=1)), STUDENT, TEACHER, torch.tensor([1]))
    assert terms["instance"].item() == pytest.approx(0.5 * math.log(2), rel=1e-5)
    assert terms["batch"].item() == pytest.approx(0, abs=1e-7)  # both rows have the squared norm 22/64
    # sum_ij (p_i p_j - q_i q_j)^2 = |p|^4 + |q|^4 - 2 (p q)^2 with p q = 15/64, over 4 classes
    assert terms["class"].item() == pytest.approx((2 * (22 / 64) ** 2 - 2 * (15 / 64) ** 2) / 4, rel=1e-5)


def test_default_against_numpy() -> None:
    student, teacher, labels = random_rows()
    expected = {"instance": 0.0, "batch": 0.0, "class": 0.0}
    for t in (2, 3, 4, 5, 6):
        p, q = softmax(student.double().numpy() / t), softmax(teacher.double().numpy() / t)
        expected["instance"] += 0.9 * t**2 * (q * np.log(q / p)).sum(1).mean()
        expected["batch"] += 0.9 * ((p @ p.T - q @ q.T) ** 2).sum() / 6
        expected["class"] += 0.9 * ((p.T @ p - q.T @ q) ** 2).sum() / 5
    terms = run(prepared(MLKD()), student, teacher, labels)
    assert {name: terms[name].item() for name in expected} == pytest.approx(expected, rel=1e-4)


def test_one_temperature_without_relations_is_kd() -> None:
    student, teacher, labels = random_rows()
    terms = run(prepared(MLKD(temperatures=(4.0,), kd_weight=1)), student, teacher, labels)
    assert terms["instance"].item() == pytest.approx(kd_loss(student, teacher, 4.0).item(), rel=1e-5)


def test_batch_sees_no_renaming_of_classes_and_class_no_order_of_images() -> None:
    p, q = (x.softmax(1) for x in random_rows()[:2])
    assert gram_loss(p[:, torch.randperm(5)], q).item() == pytest.approx(gram_loss(p, q).item(), rel=1e-4)
    assert gram_loss(p[torch.randperm(6)].T, q.T).item() == pytest.approx(gram_loss(p.T, q.T).item(), rel=1e-4)


@pytest.mark.parametrize("value", [[], 4.0, "234", [2.0, 0.0]])
def test_temperatures_are_a_list_of_numbers(value: object) -> None:
    with pytest.raises(ConfigError, match="distill.method mlkd: temperatures"):
        MLKD(temperatures=value)
