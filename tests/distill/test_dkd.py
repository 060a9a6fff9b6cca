"""DKD by hand on fractions, and KD as the case whose weights put it together again."""

from __future__ import annotations

import math

import pytest
import torch
from logit_rows import STUDENT, TEACHER, prepared, random_rows, run

from edgekd.distill.methods.dkd import DKD, dkd_parts
from edgekd.distill.methods.kd import kd_loss

LABEL = torch.tensor([1])


def test_parts_by_hand() -> None:
    target, rest = dkd_parts(STUDENT, TEACHER, LABEL, 1.0)
    # b_t = (1/2, 1/2), b_s = (1/4, 3/4)
    assert target.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-5)
    # the others: (1/4, 1/2, 1/4) against (2/3, 1/6, 1/6)
    assert rest.item() == pytest.approx(0.25 * math.log(3 / 8) + 0.5 * math.log(3) + 0.25 * math.log(3 / 2), rel=1e-5)
    assert rest.item() == pytest.approx(math.log(1.5), rel=1e-5)


def test_temperature_divides_the_logits_and_its_square_weights_the_loss() -> None:
    method = prepared(DKD(temperature=2.0, alpha=3.0, beta=5.0, warmup=0))
    terms = run(method, 2 * STUDENT, 2 * TEACHER, LABEL)
    assert terms["tckd"].item() == pytest.approx(4 * 3 * 0.5 * math.log(4 / 3), rel=1e-5)
    assert terms["nckd"].item() == pytest.approx(4 * 5 * math.log(1.5), rel=1e-5)


def test_the_teachers_own_weights_recombine_to_kd() -> None:
    student, teacher, labels = random_rows(n=40)
    target, rest = dkd_parts(student, teacher, labels, 3.0)
    doubt = 1 - (teacher / 3).softmax(1).gather(1, labels[:, None]).squeeze(1)
    assert 9 * (target + doubt * rest).mean().item() == pytest.approx(kd_loss(student, teacher, 3.0).item(), rel=1e-5)


def test_parts_are_independent() -> None:
    student, teacher, labels = random_rows()
    moved = student + 2 * torch.nn.functional.one_hot(labels, 5)
    before, after = dkd_parts(student, teacher, labels, 2.0), dkd_parts(moved, teacher, labels, 2.0)
    assert torch.allclose(before[1], after[1], atol=1e-6) and not torch.allclose(before[0], after[0])


def test_warm_up_takes_a_twelfth_of_the_run() -> None:
    method = prepared(DKD(), steps=240)
    full = run(prepared(DKD(warmup=0)), STUDENT, TEACHER, LABEL)["nckd"].item()
    ramp = [run(method, STUDENT, TEACHER, LABEL, step)["nckd"].item() / full for step in (0, 1, 10, 19, 200)]
    assert ramp == pytest.approx([1 / 20, 2 / 20, 11 / 20, 1, 1])
