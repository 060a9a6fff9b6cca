"""TTM by hand on fractions, the paper's decomposition into KD and a Renyi entropy, and its weight."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from logit_rows import STUDENT, TEACHER, prepared, random_rows, run, softmax

from edgekd.distill.methods.kd import kd_loss
from edgekd.distill.methods.ttm import TTM, power_sum, ttm_loss

LABEL = torch.tensor([1])


def test_value_by_hand() -> None:
    # a teacher of 1/22 16/22 4/22 1/22 to the power 1/2 is 1/8 1/2 1/4 1/8; the student stays 1/2 1/4 1/8 1/8
    expected = math.log(1 / 4) / 8 + math.log(2) / 2 + math.log(2) / 4
    assert ttm_loss(STUDENT, 2 * TEACHER, 0.5).item() == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(0.5 * math.log(2))
    assert power_sum(2 * TEACHER, 0.5).item() == pytest.approx((1 + 4 + 2 + 1) / math.sqrt(22), rel=1e-5)
    terms = run(prepared(TTM(gamma=0.5, beta=3.0, weighted=True)), STUDENT, 2 * TEACHER, LABEL)
    assert terms["ttm"].item() == pytest.approx(3 * 8 / math.sqrt(22) * expected, rel=1e-5)


def test_equation_15_kd_and_a_renyi_entropy() -> None:
    student, teacher, _ = random_rows()
    temperature, gamma = 2.5, 1 / 2.5
    s, t = student.double().numpy(), teacher.double().numpy()
    q, q_t, p_t = softmax(s), softmax(s * gamma), softmax(t * gamma)
    kl = (p_t * np.log(p_t / q_t)).sum(1)
    renyi = np.log((q**gamma).sum(1)) / (1 - gamma)
    shannon = -(p_t * np.log(p_t)).sum(1)
    expected = temperature * kl - (temperature - 1) * renyi + (temperature - 1) * shannon
    assert ttm_loss(student, teacher, gamma).numpy() == pytest.approx(expected, rel=1e-4)


def test_gamma_one_is_kd_at_temperature_one() -> None:
    student, teacher, _ = random_rows()
    assert ttm_loss(student, teacher, 1.0).mean().item() == pytest.approx(kd_loss(student, teacher, 1.0).item())


def test_gradient_is_the_student_less_the_transformed_teacher() -> None:
    student, teacher, _ = random_rows()
    student.requires_grad_()
    ttm_loss(student, teacher, 0.3).sum().backward()
    assert torch.allclose(student.grad, student.softmax(1) - (0.3 * teacher).softmax(1), atol=1e-6)


def test_weight_from_one_hot_to_uniform() -> None:
    rows = torch.tensor([[1e4, 0, 0, 0], [0, 0, 0, 0]])
    assert power_sum(rows, 0.3).tolist() == pytest.approx([1, 4**0.7], rel=1e-5)


def test_default_weights_are_those_of_the_pair() -> None:
    student, teacher, labels = random_rows()
    plain = run(prepared(TTM()), student, teacher, labels)["ttm"]
    assert plain.item() == pytest.approx(7 * ttm_loss(student, teacher, 0.3).mean().item(), rel=1e-6)
    rows = power_sum(teacher, 0.3) * ttm_loss(student, teacher, 0.3)
    weighted = run(prepared(TTM(weighted=True)), student, teacher, labels)["ttm"]
    assert weighted.item() == pytest.approx(1.5 * rows.mean().item(), rel=1e-6)
