"""TRG: each graph by hand, what none of them sees, the tokens that are drawn, and the falling temperature."""

from __future__ import annotations

import math

import pytest
import torch
from making_features import SLIM_CNN, VIT, WIDE_CNN, batch, detached, maps, one_tap, outputs, setup, side
from torch.nn import functional as F

from edgekd.distill.methods.trg import TRG, global_loss, inner_relations, local_loss
from edgekd.errors import ConfigError


def test_inner_relations_by_hand() -> None:
    x = torch.tensor([[[2.0, 0, 0, 0], [0, 2, 0, 0]]])  # products 4 and 0, over the root of 4
    p = math.exp(2) / (math.exp(2) + 1)
    assert inner_relations(x)[0].flatten().tolist() == pytest.approx([p, 1 - p, 1 - p, p])


def test_local_by_hand() -> None:
    # the teacher's third token is far from the two others, which are each other's nearest
    teacher = F.normalize(torch.tensor([[1.0, 0], [1, 0.1], [-1, 0]]))
    student = F.normalize(torch.tensor([[1.0, 0], [0, 1], [0, -1]]))
    assert local_loss(student, teacher, 1, 0.5).item() == 0  # one neighbour has all the weight
    sigma = 0.5

    def shares(x: torch.Tensor, i: int) -> torch.Tensor:
        others = [j for j in range(3) if j != i]
        a = torch.stack([(-(x[i] - x[j]).square().sum() / (2 * sigma)).exp() for j in others])
        return a / a.sum()

    expected = 0.0
    for i in range(3):
        p, q = shares(teacher, i), shares(student, i)
        expected += (p * (p / q).log()).sum().item() / 3
    assert local_loss(student, teacher, 2, sigma).item() == pytest.approx(expected, rel=1e-4)
    assert local_loss(student, teacher, 9, sigma).item() == pytest.approx(expected, rel=1e-4)


def test_edges_are_the_teachers() -> None:
    teacher = F.normalize(torch.randn(30, 6))
    student = teacher.flip(0)
    near = torch.cdist(teacher, teacher).fill_diagonal_(torch.inf).topk(4, largest=False).indices
    d_t, d_s = (-torch.cdist(x, x).square().gather(1, near) / (2 * 0.1) for x in (teacher, student))
    expected = F.kl_div(d_s.log_softmax(1), d_t.softmax(1), reduction="batchmean")
    assert local_loss(student, teacher, 4, 0.1).item() == pytest.approx(expected.item(), rel=1e-3)


def test_global_by_hand() -> None:
    x = torch.eye(4)
    assert global_loss(x, x, 0.5).item() == pytest.approx(math.log(1 + 3 * math.exp(-2)), rel=1e-5)
    assert global_loss(x, x.flip(0), 0.5).item() == pytest.approx(math.log(1 + 3 * math.exp(-2)) + 2, rel=1e-5)


def test_relations_are_blind_to_a_rotation_of_the_channels_and_the_projection_is_not() -> None:
    teacher = torch.randn(8, 6, 4, 4)
    rotation = torch.linalg.qr(torch.randn(6, 6))[0]
    student = torch.einsum("bchw,cd->bdhw", teacher, rotation)
    method = TRG()
    method.prepare(one_tap(student, teacher))
    turned, same = (method.loss(*maps(x, teacher), batch(), 0) for x in (student, teacher))
    assert turned["trg_inner"].item() == pytest.approx(0, abs=1e-6) and same["trg_inner"].item() == 0
    assert turned["trg_local"].item() == pytest.approx(0, abs=1e-5) and same["trg_local"].item() == 0
    with torch.no_grad():
        method.project.weight.copy_(torch.eye(6))
        method.project.bias.zero_()
    turned, same = (method.loss(*maps(x, teacher), batch(), 0)["trg_global"].item() for x in (student, teacher))
    assert same < turned


def test_weights_and_temperature() -> None:
    sides = side(SLIM_CNN), side(WIDE_CNN)
    ours, theirs = (detached(outputs(s, i)) for i, s in enumerate(sides))
    plain, weighted = TRG(), TRG(inner_weight=3.0, local_weight=2.0, global_weight=0.7, temperature_end=0.5)
    for method in (plain, weighted):
        method.prepare(setup(*sides))
    terms, more = (method.loss(ours, theirs, batch(), 0) for method in (plain, weighted))
    factors = {"trg_inner": 3.0, "trg_local": 2.0, "trg_global": 7.0}
    assert {k: v.item() for k, v in more.items()} == {k: pytest.approx(f * terms[k].item()) for k, f in factors.items()}
    seen: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekd.distill.methods.trg.global_loss", lambda *x: seen.append(x[2]) or x[0].sum())
        for step in (0, 5, 10):
            plain.loss(ours, theirs, batch(), step)
    assert seen == pytest.approx([0.5, 0.3, 0.1])


def test_tokens_are_drawn_by_step_and_sample() -> None:
    method = TRG(tokens=10)
    method.prepare(setup(side(SLIM_CNN), side(WIDE_CNN)))
    here = torch.device("cpu")
    first = method.drawn(batch(), 16, 0, here)
    assert len(set(first.tolist())) == 10 and first.max() < 8 * 16
    assert torch.equal(method.drawn(batch(), 16, 0, here), first)
    assert not torch.equal(method.drawn(batch(), 16, 1, here), first)
    assert len(method.drawn(batch(), 1, 0, here)) == 8
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    moved = method.drawn(batch(samples=order), 16, 0, here)
    assert [(order[i // 16], i % 16) for i in moved.tolist()] == [(i // 16, i % 16) for i in first.tolist()]


def test_a_transformers_class_token_is_no_token_here() -> None:
    sides = side(VIT), side(VIT)
    ours, theirs = (detached(outputs(s, i)) for i, s in enumerate(sides))
    method = TRG()
    method.prepare(setup(*sides))
    before = method.loss(ours, theirs, batch(), 0)
    for tap in ours.features.values():
        tap[:, 0] = 100.0
    after = method.loss(ours, theirs, batch(), 0)
    assert {k: v.item() for k, v in after.items()} == {k: v.item() for k, v in before.items()}


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="distill.method trg: tap layer3 has one position, and trg compares"):
        TRG().prepare(setup(side(SLIM_CNN), side(WIDE_CNN | {"layer3": (24, 1, 1)})))
    with pytest.raises(ConfigError, match="distill.method trg: tokens is 1"):
        TRG(tokens=1)
