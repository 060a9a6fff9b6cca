"""RKD: three points by hand, the formula spelled out, isometries, and points that meet."""

from __future__ import annotations

import pytest
import torch
from making_features import batch, embedded
from torch.nn import functional as F

from edgekd.distill.methods.rkd import RelationalKD, relations

LINE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
TRIANGLE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])


def test_a_line_and_a_triangle_by_hand() -> None:
    terms = RelationalKD().loss(*embedded(LINE, TRIANGLE), batch(3), 0)
    # distances 1, 3, 2 have mean 2: (0.5, 1.5, 1) against (1, 1, 1), each pair twice among 9
    assert terms["rkd_distance"].item() == pytest.approx(25 * 2 * (0.125 + 0.125 + 0) / 9, rel=1e-5)
    # cosines 1, -1, 1 at the three points against 1/2: Huber 0.125, 1.5 - 0.5 = 1, 0.125, each twice among 27
    assert terms["rkd_angle"].item() == pytest.approx(50 * 2 * (0.125 + 1 + 0.125) / 27, rel=1e-5)


def test_relations_are_the_formulae_spelled_out() -> None:
    x = torch.randn(6, 4) + 10
    distance, cosine = relations(x)
    between = torch.cdist(x, x)
    assert torch.allclose(distance, between / (between.sum() / 30), atol=1e-4)
    direction = F.normalize(x[None] - x[:, None], dim=2)  # [j, i]: from j to i
    assert torch.allclose(cosine, direction @ direction.transpose(1, 2), atol=1e-4)


def test_isometries_and_scale_change_nothing() -> None:
    student, teacher = torch.randn(7, 5), torch.randn(7, 3)
    rotation = torch.linalg.qr(torch.randn(5, 5))[0]
    total = [
        sum(RelationalKD().loss(*embedded(x, teacher), batch(7), 0).values()).item()
        for x in (student, 4 * student @ rotation + 2)
    ]
    assert total[1] == pytest.approx(total[0], rel=1e-4)
    same = RelationalKD().loss(*embedded(student, student @ rotation), batch(7), 0)
    assert sum(same.values()).item() == pytest.approx(RelationalKD.minimum, abs=1e-6)


@pytest.mark.parametrize("points", [torch.ones(4, 3), torch.cat([torch.randn(3, 3)] * 2)])
def test_points_that_meet_have_no_angle_and_a_finite_gradient(points: torch.Tensor) -> None:
    student = points.clone().requires_grad_()
    sum(RelationalKD().loss(*embedded(student, torch.randn(len(points), 2)), batch(), 0).values()).backward()
    assert student.grad.isfinite().all()
    assert relations(points)[1].abs().max() <= 1 + 1e-4
