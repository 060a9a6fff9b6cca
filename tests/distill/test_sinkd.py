"""SinKD against its golden values and numpy, what its plan sums to, and when it ends early."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from logit_rows import random_rows, run, softmax

from edgekd.config import method_choices
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.sinkd import SinKD, distances, plan
from edgekd.errors import ConfigError

S = torch.tensor([[2, 0.5, -1, 0], [0.1, 0.2, 1.5, -0.3]])
T = torch.tensor([[3, 1, -2, 0.5], [-0.5, 0, 2.5, -1]])
LABELS = torch.tensor([0, 2])


def test_golden_values() -> None:
    work = distances(S, T)
    assert work.flatten().tolist() == pytest.approx([0.182477, 0.971789, 0.742241, 0.363391], abs=1e-6)
    assert (plan(work) * work).sum().item() == pytest.approx(0.553046, abs=1e-6)
    assert run(SinKD(), S, T, LABELS)["sinkd"].item() == pytest.approx(0.0128 * 0.553046 / 2, rel=1e-5)


def test_against_numpy() -> None:
    student, teacher, labels = random_rows(n=9)
    p, q = softmax(student.double().numpy() / 3), softmax(teacher.double().numpy() / 3)
    work = np.sqrt(((p[:, None] - q) ** 2).sum(2))
    k = np.exp(-work / 0.2)
    for _ in range(7):
        k = k / k.sum(1, keepdims=True)
        k = k / k.sum(0, keepdims=True)
    method = SinKD(weight=2.0, temperature=3.0, epsilon=0.2, iterations=7, cost="l2")
    assert run(method, student, teacher, labels)["sinkd"].item() == pytest.approx(2 * (k * work).sum() / 9, rel=1e-4)


def test_a_small_epsilon_gives_the_best_assignment() -> None:
    work = distances(*random_rows(n=6, k=30)[:2])
    best = min(work[range(6), order].sum().item() for order in permutations(range(6)))
    assert (plan(work, epsilon=1e-3, iterations=2000) * work).sum().item() == pytest.approx(best, rel=1e-3)
    assert (plan(work, epsilon=0.1) * work).sum().item() > best


def test_the_plan_moves_all_there_is_whatever_the_costs() -> None:
    work = 50 * torch.rand(6, 6)
    moved = plan(work, epsilon=0.01, iterations=50)  # exp(-5000) is 0 in any precision
    assert moved.isfinite().all() and torch.allclose(moved.sum(0), torch.ones(6), atol=1e-5)


def test_a_tolerance_ends_it_when_the_rows_are_near() -> None:
    work = distances(*random_rows(n=20, k=10)[:2])
    exact, near, far = (plan(work, iterations=3000, tolerance=x) for x in (0, 1e-3, 0.1))
    off = [(p.sum(1) - 1).abs().max().item() for p in (exact, near, far)]
    assert off[0] < 1e-5 < off[1] < 1e-3 < off[2] < 0.1


def test_the_gradient_flows_through_the_plan() -> None:
    student = S.clone().requires_grad_()
    run(SinKD(weight=1.0), student, T, LABELS)["sinkd"].backward()
    step = 1e-3
    for i in (0, 5):
        moved = S.flatten().clone()
        moved[i] += step
        up = run(SinKD(weight=1.0), moved.view(2, 4), T, LABELS)["sinkd"].item()
        moved[i] -= 2 * step
        down = run(SinKD(weight=1.0), moved.view(2, 4), T, LABELS)["sinkd"].item()
        assert student.grad.flatten()[i].item() == pytest.approx((up - down) / (2 * step), abs=1e-4)


def test_beside_kd() -> None:
    method, row = make_method(method_choices(["kd", {"sinkd": {"weight": 1.0}}]), 0.0, 0)
    assert set(run(method, S, T, LABELS)) == {"ce", "kd", "sinkd"} and set(row.needs) == {"labels", "all_logits"}


def test_a_bad_cost_is_named() -> None:
    with pytest.raises(ConfigError, match="distill.method sinkd: cost is 'l3'\nWrite l1 or l2"):
        SinKD(cost="l3")
