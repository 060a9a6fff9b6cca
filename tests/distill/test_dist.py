"""DIST against numpy's correlation, and what a correlation cannot see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from logit_rows import prepared, random_rows, run, softmax

from edgekd.distill.methods.dist import DIST, pearson_distance


def test_distance_by_hand() -> None:
    # (1, 2, 3) and (1, 3, 2), centred (-1, 0, 1) and (-1, 1, 0): correlation 1 / 2
    u, v = torch.tensor([[1.0, 2, 3]]), torch.tensor([[1.0, 3, 2]])
    assert pearson_distance(u, v, 1).item() == pytest.approx(0.5)
    assert pearson_distance(u, -u, 1).item() == pytest.approx(2)
    assert pearson_distance(u, torch.ones(1, 3), 1).item() == pytest.approx(1)


def test_rows_and_columns_against_numpy() -> None:
    student, teacher, labels = random_rows(n=7)
    p, q = softmax(student.double().numpy() / 4), softmax(teacher.double().numpy() / 4)
    rows = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    terms = run(prepared(DIST(beta=2, gamma=3)), student, teacher, labels)
    assert terms["inter"].item() == pytest.approx(16 * 2 * rows, rel=1e-4)
    assert terms["intra"].item() == pytest.approx(16 * 3 * columns, rel=1e-4)


@pytest.mark.parametrize("dim", [0, 1])
def test_affine_changes_of_either_side_are_invisible(dim: int) -> None:
    student, teacher, _ = random_rows()
    shape = (1, 5) if dim == 0 else (6, 1)
    scale, shift = torch.rand(shape) + 0.5, torch.randn(shape)
    moved = pearson_distance(scale * student + shift, teacher, dim)
    assert torch.allclose(moved, pearson_distance(student, teacher, dim), atol=1e-5)


def test_columns_of_improbable_classes_count() -> None:
    p = torch.tensor([[1e-6, 1 - 1e-6], [2e-6, 1 - 2e-6], [5e-6, 1 - 5e-6]])
    assert pearson_distance(p, p, 0)[0].item() == pytest.approx(0, abs=1e-4)


def test_one_row_teaches_nothing_by_columns() -> None:
    student, teacher, labels = random_rows(n=1)
    student.requires_grad_()
    run(prepared(DIST()), student, teacher, labels)["intra"].backward()
    assert student.grad is not None and not student.grad.any()
