"""NKD by hand on fractions, and its gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from logit_rows import STUDENT, TEACHER, prepared, random_rows, run, softmax

from edgekd.distill.methods.dkd import dkd_parts
from edgekd.distill.methods.nkd import NKD, other_loss, target_loss

LABEL = torch.tensor([1])


def test_terms_by_hand() -> None:
    assert target_loss(STUDENT, TEACHER, LABEL).item() == pytest.approx(0.5 * math.log(4), rel=1e-5)
    # the others: (1/4, 1/2, 1/4) against (2/3, 1/6, 1/6)
    expected = 0.25 * math.log(3 / 2) + 0.75 * math.log(6)
    assert other_loss(STUDENT, TEACHER, LABEL, 1.0).item() == pytest.approx(expected, rel=1e-5)
    terms = run(prepared(NKD(temperature=2.0, gamma=1.5)), 2 * STUDENT, 2 * TEACHER, LABEL)
    assert terms["other"].item() == pytest.approx(1.5 * 4 * expected, rel=1e-5)
    # the target term keeps temperature 1: squared fractions, 16/22 of the teacher and 4/22 of the student
    assert terms["target"].item() == pytest.approx(-16 / 22 * math.log(4 / 22), rel=1e-5)


def test_against_numpy_with_the_label_deleted() -> None:
    student, teacher, labels = random_rows()
    rows = []
    for s, t, y in zip(student.double().numpy(), teacher.double().numpy(), labels.numpy(), strict=True):
        p, q = softmax(np.delete(s, y) / 3), softmax(np.delete(t, y) / 3)
        rows.append(-(q * np.log(p)).sum())
    assert other_loss(student, teacher, labels, 3.0).numpy() == pytest.approx(np.array(rows), rel=1e-5)


def test_it_is_nckd_up_to_the_teachers_entropy() -> None:
    student, teacher, labels = random_rows()
    entropy = other_loss(teacher, teacher, labels, 2.0)
    rest = dkd_parts(student, teacher, labels, 2.0)[1]
    assert torch.allclose(other_loss(student, teacher, labels, 2.0) - entropy, rest, atol=1e-5)


def test_the_other_term_never_moves_the_label() -> None:
    student, teacher, labels = random_rows()
    student.requires_grad_()
    run(prepared(NKD()), student, teacher, labels)["other"].backward()
    assert student.grad is not None and not student.grad.gather(1, labels[:, None]).any()
