"""What every logit method keeps: the label term, its minimum, precision, invariances, errors that name an option."""

from __future__ import annotations

import math

import pytest
import torch
from logit_rows import prepared, random_rows, run
from torch.nn import functional as F

from edgekd.catalog import METHODS
from edgekd.distill.methods._logits import (
    LogitMethod,
    class_mask,
    kl,
    log_binary,
    log_softmax_without,
)
from edgekd.errors import ConfigError

MORE = {"network", "held_out", "table"}  # not of logits and labels alone: tested by themselves
ROWS = {n: row for n, row in METHODS.items() if issubclass(row.load(), LogitMethod) and not MORE & set(row.needs)}
OWN_LABEL_TERM = ("pld", "mixkd")  # theirs is weighted by the teacher, or on standardised logits


def make(name: str, **options: object) -> LogitMethod:
    method = prepared(ROWS[name].load()(**options), num_classes=5)
    assert isinstance(method, LogitMethod)
    return method


def total(terms: dict[str, torch.Tensor]) -> float:
    return sum(term.item() for term in terms.values())


@pytest.mark.parametrize("name", ROWS)
def test_owns_the_label_term(name: str) -> None:
    student, teacher, labels = random_rows()
    assert ROWS[name].owns_labels
    method = make(name, label_smoothing=0.1)
    terms = run(method, student, teacher, labels)
    assert len(terms) > 1 and all(term.ndim == 0 for term in terms.values())
    if name in OWN_LABEL_TERM:
        return
    expected = method.ce_weight * F.cross_entropy(student, labels, label_smoothing=0.1)
    assert terms["ce"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_minimum_is_the_value_where_student_and_teacher_agree(name: str) -> None:
    student, teacher, labels = random_rows(seed=1)
    method = make(name)
    terms = run(method, teacher, teacher, labels)
    del terms["ce"]
    if method.minimum is not None:
        assert total(terms) == pytest.approx(method.minimum, abs=1e-5)
        away = run(method, student, teacher, labels)
        assert total(away) - away["ce"].item() > method.minimum + 1e-3
    else:
        assert total(terms) > 1e-3  # not a divergence from the teacher's own logits


@pytest.mark.parametrize("name", ROWS)
def test_autocast_and_half_precision_lose_nothing(name: str) -> None:
    student, teacher, labels = random_rows()
    student, teacher = student.bfloat16(), teacher.bfloat16()
    exact = run(make(name), student.float(), teacher.float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        cast = run(make(name), student, teacher, labels)
    assert all(term.dtype is torch.float32 for term in cast.values())
    assert {k: v.item() for k, v in cast.items()} == {k: v.item() for k, v in exact.items()}


@pytest.mark.parametrize("name", ROWS)
def test_gradients_stay_finite_far_out(name: str) -> None:
    student, teacher, labels = random_rows()
    student = (100 * student).requires_grad_()
    sum(run(make(name), student, 100 * teacher, labels).values()).backward()
    assert student.grad is not None and student.grad.isfinite().all() and student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ROWS)
def test_neither_the_order_of_rows_nor_of_classes_matters(name: str) -> None:
    student, teacher, labels = random_rows()
    value = total(run(make(name), student, teacher, labels))
    rows, classes = torch.randperm(6), torch.randperm(5)
    student, teacher = student[rows][:, classes], teacher[rows][:, classes]
    assert total(run(make(name), student, teacher, classes.argsort()[labels[rows]])) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", ROWS)
def test_what_is_added_to_a_row_does_not_matter(name: str) -> None:
    student, teacher, labels = random_rows()
    value = total(run(make(name), student, teacher, labels))
    assert total(run(make(name), student + 3, teacher, labels)) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", ROWS)
def test_a_step_against_the_gradient_lowers_the_loss(name: str) -> None:
    student, teacher, labels = random_rows()
    student.requires_grad_()
    before = sum(run(make(name), student, teacher, labels).values())
    before.backward()
    moved = student.detach() - 1e-3 * student.grad / student.grad.norm()
    assert total(run(make(name), moved, teacher, labels)) < before.item()


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("kd", "temperature", 0),
        ("kd", "alpha", 1.5),
        ("kd", "temperature", "4"),
        ("dkd", "beta", -1),
        ("dkd", "warmup", float("nan")),
        ("rld", "warmup", 20),
        ("kd", "anneal_share", 1.5),
        ("wkd", "decay_start", -0.1),
        ("wkd", "decay_end", 240),
        ("dist", "gamma", float("inf")),
        ("nkd", "temperature", True),
        ("ttm", "gamma", 0),
        ("rld", "alpha", None),
        ("wkd", "eta", 0),
        ("wkd", "iterations", 2.5),
        ("mlkd", "ce_weight", -0.1),
        ("pld", "floor", 1.5),
        ("topkld", "temperature", 0),
        ("mixkd", "mixed", 2),
        ("dkd", "label_smoothing", 2),
    ],
)
def test_a_bad_option_is_named(name: str, option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"distill.method {name}: {option} is .*\nWrite .*a.*number"):
        make(name, **{option: value})


# ---- the shared pieces


def test_split_of_a_distribution_by_hand() -> None:
    logits = torch.tensor([[4.0, 2, 1, 1]]).log()
    mask = class_mask(torch.tensor([1]), 4)
    assert mask.tolist() == [[False, True, False, False]]
    assert log_binary(logits, mask).exp().tolist()[0] == pytest.approx([1 / 4, 3 / 4])
    rest = log_softmax_without(logits, mask)
    assert rest.tolist()[0] == pytest.approx([math.log(4 / 6), 0, math.log(1 / 6), math.log(1 / 6)])


def test_a_row_without_classes_gives_zero_and_no_gradient() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    mask = torch.ones(2, 3, dtype=torch.bool)
    rows = kl(log_softmax_without(logits, mask), log_softmax_without(torch.randn(2, 3), mask))
    with torch.autograd.set_detect_anomaly(True):  # not even a nan on the way
        rows.sum().backward()
    assert rows.tolist() == [0, 0] and logits.grad is not None and not logits.grad.any()
