"""Similarity preserving: a value by hand, and the invariances of a row-normalised Gram."""

from __future__ import annotations

import pytest
import torch
from making_features import batch, maps, one_tap

from edgekd.distill.methods.sp import SimilarityPreserving


def loss(student: torch.Tensor, teacher: torch.Tensor) -> float:
    method = SimilarityPreserving()
    method.prepare(one_tap(student, teacher))
    return method.loss(*maps(student, teacher), batch(len(student)), 0)["sp"].item()


def test_two_images_by_hand() -> None:
    # orthogonal images give the identity, equal ones rows (1, 1) / sqrt 2: ||difference||^2 = 2 (2 - sqrt 2)
    student = torch.eye(2).view(2, 2, 1, 1)
    teacher = torch.ones(2, 3, 1, 1)
    assert loss(student, teacher) == pytest.approx(3000 * 2 * (2 - 2**0.5) / 4, rel=1e-5)


def test_an_orthogonal_map_of_the_features_changes_nothing() -> None:
    student, teacher = torch.randn(5, 4, 2, 2), torch.randn(5, 3, 3, 3)
    rotation = torch.linalg.qr(torch.randn(16, 16))[0]
    turned = (student.flatten(1) @ rotation).view(5, 4, 2, 2)
    assert loss(-2 * turned, teacher) == pytest.approx(loss(student, teacher), rel=1e-4)
    assert loss(turned, student) == pytest.approx(0, abs=1e-6)
