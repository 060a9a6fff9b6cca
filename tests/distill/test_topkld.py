"""TopKLD by hand on fractions, its two ends, and parts that are never negative."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from logit_rows import STUDENT, TEACHER, prepared, random_rows, run, softmax

from edgekd.distill.methods.kd import kd_loss
from edgekd.distill.methods.topkld import TopKLD, topkld_parts
from edgekd.errors import ConfigError

LABEL = torch.tensor([1])


def test_parts_by_hand() -> None:
    # p = 1/8 1/2 1/4 1/8 and q = 1/2 1/4 1/8 1/8; the teacher's first two are classes 1 and 2
    forward, reverse = topkld_parts(STUDENT, TEACHER, 2)
    assert forward.item() == pytest.approx(0.5 * math.log(2) + 0.25 * math.log(2) - 3 / 8, rel=1e-5)
    assert reverse.item() == pytest.approx(0.5 * math.log(4) + 0 - 3 / 8, rel=1e-5)


def test_temperature_divides_the_logits_and_its_square_weights_the_loss() -> None:
    terms = run(prepared(TopKLD(k=2, temperature=3.0)), 3 * STUDENT, 3 * TEACHER, LABEL)
    assert terms["forward"].item() == pytest.approx(9 * (0.75 * math.log(2) - 3 / 8), rel=1e-5)
    assert terms["reverse"].item() == pytest.approx(9 * (math.log(2) - 3 / 8), rel=1e-5)


@pytest.mark.parametrize("k", [5, 9])
def test_all_classes_are_the_forward_kl(k: int) -> None:
    student, teacher, labels = random_rows()
    terms = run(prepared(TopKLD(k=k, temperature=2.0), 5), student, teacher, labels)
    assert terms["forward"].item() == pytest.approx(kd_loss(student, teacher, 2.0).item(), rel=1e-4)
    assert terms["reverse"].item() == 0


def test_one_class_is_nearly_the_reverse_kl() -> None:
    student, teacher, _ = random_rows(n=30)
    forward, reverse = topkld_parts(student, teacher, 1)
    p, q = softmax(teacher.double().numpy()), softmax(student.double().numpy())
    first = np.arange(5) == p.argmax(1)[:, None]
    assert reverse.tolist() == pytest.approx((np.where(first, 0, q * np.log(q / p) - q + p)).sum(1), rel=1e-4, abs=1e-6)
    assert forward.tolist() == pytest.approx((np.where(first, p * np.log(p / q) - p + q, 0)).sum(1), rel=1e-4, abs=1e-6)


def test_no_part_is_negative_and_both_are_0_at_the_teacher() -> None:
    student, teacher, _ = random_rows(n=300, k=20)
    for k in (1, 5, 19):
        parts = topkld_parts(3 * student, teacher, k)
        assert all(part.min() > -1e-6 and part.max() > 0.01 for part in parts)
        assert all(part.abs().max() < 1e-6 for part in topkld_parts(teacher, teacher, k))


def test_labels_can_be_left_out() -> None:
    assert run(prepared(TopKLD(ce_weight=0)), STUDENT, TEACHER, LABEL)["ce"].item() == 0
    with pytest.raises(ConfigError, match="distill.method topkld: k is 0"):
        TopKLD(k=0)
