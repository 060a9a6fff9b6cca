"""RLD by hand on fractions for a teacher that is right and one that is wrong, and DKD as the first case."""

from __future__ import annotations

import math

import pytest
import torch
from logit_rows import STUDENT, TEACHER, prepared, random_rows, run

from edgekd.distill.methods.dkd import dkd_parts
from edgekd.distill.methods.rld import RLD, confidence_loss, correlation_loss


def test_a_right_teacher_by_hand() -> None:
    label = torch.tensor([1])
    assert confidence_loss(STUDENT, TEACHER, label, 1.0).item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-5)
    assert correlation_loss(STUDENT, TEACHER, label, 1.0).item() == pytest.approx(math.log(1.5), rel=1e-5)


def test_a_wrong_teacher_by_hand() -> None:
    label = torch.tensor([2])  # the teacher puts 1/2 on class 1, 1/4 on the label, 1/8 on classes 0 and 3
    # (1/2, 1/2) of the guess against (1/8, 7/8) of the label
    expected = 0.5 * math.log(4) + 0.5 * math.log(4 / 7)
    assert confidence_loss(STUDENT, TEACHER, label, 1.0).item() == pytest.approx(expected, rel=1e-5)
    # below the label: (1/2, 1/2) against (4/5, 1/5)
    expected = 0.5 * math.log(5 / 8) + 0.5 * math.log(5 / 2)
    assert correlation_loss(STUDENT, TEACHER, label, 1.0).item() == pytest.approx(expected, rel=1e-5)


def test_a_label_ranked_last_leaves_nothing_to_correlate() -> None:
    student = STUDENT.clone().requires_grad_()
    row = correlation_loss(student, TEACHER, torch.tensor([0]), 1.0)  # tied with class 3, below the others
    row.sum().backward()
    assert row.item() == 0 and not student.grad.any()


def test_it_is_dkd_where_the_teacher_is_right() -> None:
    student, teacher, _ = random_rows(n=20)
    labels = teacher.argmax(1)
    target, rest = dkd_parts(student, teacher, labels, 4.0)
    terms = run(prepared(RLD(alpha=2, beta=3, warmup=0)), student, teacher, labels)
    assert terms["scd"].item() == pytest.approx(16 * 2 * target.mean().item(), rel=1e-5)
    assert terms["mcd"].item() == pytest.approx(16 * 3 * rest.mean().item(), rel=1e-5)


def test_the_student_is_free_on_what_the_teacher_ranks_above_the_label() -> None:
    student, teacher, label = STUDENT.clone().requires_grad_(), TEACHER, torch.tensor([2])
    correlation_loss(student, teacher, label, 1.0).sum().backward()
    assert (student.grad != 0).tolist() == [[True, False, False, True]]


def test_confidence_is_met_at_the_teachers_own() -> None:
    student = torch.tensor([[0.0, 0.0, math.log(3), 0.0]])  # half on the label, as the teacher on its guess
    assert confidence_loss(student, TEACHER, torch.tensor([2]), 1.0).item() == pytest.approx(0, abs=1e-6)
