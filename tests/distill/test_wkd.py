"""WKD-L: transport against closed forms and a numpy Sinkhorn, the cost, and where the class relations come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from logit_rows import STUDENT, TEACHER, prepared, random_rows, run, softmax
from torch import nn

from edgekd.distill.methods._base import Side
from edgekd.distill.methods.nkd import target_loss
from edgekd.distill.methods.wkd import WKD, classifier_rows, transport, transport_cost
from edgekd.errors import ConfigError

P, Q = STUDENT.softmax(1), TEACHER.softmax(1)  # 1/2 1/4 1/8 1/8 and 1/8 1/2 1/4 1/8


def test_equal_costs_give_the_total_variation() -> None:
    work = transport(P, Q, 1 - torch.eye(4), eta=0.02, iterations=300)
    assert work.item() == pytest.approx((3 / 8 + 1 / 4 + 1 / 8) / 2, rel=1e-4)


def test_costs_along_a_line_give_the_difference_of_the_cumulated() -> None:
    line = torch.arange(4.0)
    work = transport(P, Q, (line[:, None] - line).abs(), eta=0.02, iterations=300)
    assert work.item() == pytest.approx(3 / 8 + 1 / 8 + 0, rel=1e-3)  # 4/8 6/8 7/8 against 1/8 5/8 7/8


def test_a_class_without_mass_is_absent_from_the_first_iteration() -> None:
    keep = [0, 2, 3]
    p, q = (x / x[:, keep].sum() * torch.tensor([1.0, 0, 1, 1]) for x in (P, Q))
    cost = transport_cost(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), 1.0)
    fewer = transport(p[:, keep], q[:, keep], cost[keep][:, keep], iterations=1)
    assert transport(p, q, cost, iterations=1).item() == pytest.approx(fewer.item(), rel=1e-5)


def test_equal_distributions_cost_less_the_smaller_eta() -> None:
    cost = transport_cost(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]), 1.0)
    work = [transport(P, P, cost, eta, 200).item() for eta in (0.2, 0.05, 0.01)]
    assert work[0] > work[1] > work[2] and work[2] == pytest.approx(0, abs=1e-4)


def test_cost_by_hand() -> None:
    cost = transport_cost(torch.tensor([[2.0, 0], [0, 3], [5, 0], [-1, 0]]), kappa=1.0)
    assert cost.diagonal().tolist() == [0, 0, 0, 0]
    assert cost[0].tolist() == pytest.approx([0, 1 - math.exp(-1), 0, 1 - math.exp(-2)], abs=1e-6)
    assert torch.equal(cost, cost.T)
    assert transport_cost(torch.zeros(2, 2), 2.0)[0, 1].item() == pytest.approx(1 - math.exp(-2))


def sinkhorn(p: np.ndarray, q: np.ndarray, cost: np.ndarray) -> float:
    kernel, u = np.exp(-cost / 0.05), np.ones(len(p))
    for _ in range(10):
        v = q / (kernel.T @ u)
        u = p / (kernel @ v)
    return float((u[:, None] * kernel * v * cost).sum())


def test_terms_against_numpy_with_the_label_deleted() -> None:
    student, teacher, labels = random_rows(n=10)
    method = prepared(WKD(), num_classes=5)
    terms = run(method, student, teacher, labels)
    s, t, y = student.double().numpy(), teacher.double().numpy(), labels.numpy()
    means = np.stack([t[y == k].mean(0) for k in range(5)])
    means -= means.mean(0)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cost = 1 - np.exp(-(1 - means @ means.T))
    work = []
    for i, label in enumerate(y):
        rest = np.delete(np.arange(5), label)
        work.append(sinkhorn(softmax(s[i, rest] / 8), softmax(t[i, rest] / 8), cost[np.ix_(rest, rest)]))
    assert terms["wkd"].item() == pytest.approx(600 * np.mean(work), rel=1e-3)
    assert terms["target"].item() == pytest.approx(target_loss(student, teacher, labels).mean().item())


def test_relations_come_from_one_epoch_and_then_stay() -> None:
    student, teacher, labels = random_rows()
    method = prepared(WKD(), num_classes=5, samples=12)  # two steps an epoch
    run(method, student, teacher, labels, 0)
    first = method.relations()
    run(method, student, teacher.flip(0), labels, 1)
    second = method.relations()
    run(method, student, 5 * teacher, labels, 2)
    assert not torch.equal(first, second) and torch.equal(second, method.relations())
    again = prepared(WKD(), num_classes=5, samples=12)
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.relations(), second)


def test_a_class_not_met_is_unrelated() -> None:
    student, teacher, _ = random_rows()
    method = prepared(WKD(), num_classes=5)
    run(method, student, teacher, torch.tensor([0, 1, 2, 0, 1, 2]))
    cost = transport_cost(method.relations(), 1.0)
    assert cost[3].tolist() == pytest.approx([1 - math.exp(-1)] * 3 + [0, 1 - math.exp(-1)], rel=1e-6)


def test_relations_of_a_classifier_are_its_rows() -> None:
    head = nn.Sequential(nn.Linear(6, 4), nn.Identity())
    side = Side({}, 6, head)
    assert torch.allclose(classifier_rows(side), head[0].weight, atol=1e-6)
    method = prepared(WKD(relation="classifier"), teacher=side)
    run(method, STUDENT, TEACHER, torch.tensor([1]))
    assert torch.allclose(method.relations(), head[0].weight, atol=1e-6)
    assert not list(method.parameters())


def test_a_classifier_needs_the_teacher_network() -> None:
    with pytest.raises(ConfigError, match=r"relation classifier needs the teacher network[^\n]*\nSet distill.targets"):
        prepared(WKD(relation="classifier"))
    with pytest.raises(ConfigError, match="relation is 'cka'"):
        WKD(relation="cka")
    with pytest.raises(ConfigError, match="decay_end"):
        WKD(decay_start=0.6, decay_end=0.5)


def test_mass_goes_to_the_related_class() -> None:
    # class 0 is close to 1 and far from 2; the teacher moved 1/4 to class 1 or to class 2
    cost = transport_cost(torch.tensor([[1.0, 0], [1, 0.2], [0, 1]]), 1.0)
    student = torch.tensor([[0.5, 0.25, 0.25]])
    near, far = (transport(student, torch.tensor([q]), cost) for q in ([0.25, 0.5, 0.25], [0.25, 0.25, 0.5]))
    assert near.item() < far.item()


def test_the_weight_falls_along_a_half_cosine() -> None:
    student, teacher, labels = random_rows()
    method = prepared(WKD(decay_start=0.2, decay_end=0.6), num_classes=5, samples=6)
    weights = [run(method, student, teacher, labels, step)["wkd"].item() for step in (1, 2, 4, 6, 9)]
    assert [w / weights[0] for w in weights] == pytest.approx([1, 1, 0.5, 0, 0], abs=1e-6)


def test_the_weight_falls_from_150_of_240_to_the_end_unless_it_starts_there() -> None:
    student, teacher, labels = random_rows()

    def weights(**options: float) -> list[float]:
        method = prepared(WKD(**options), num_classes=5, samples=6, steps=240)
        values = [run(method, student, teacher, labels, step)["wkd"].item() for step in (0, 150, 180, 239)]
        return [value / values[0] for value in values]

    last = (1 - math.cos(math.pi / 90)) / 2
    assert weights() == pytest.approx([1, 1, 0.75, last], abs=1e-6)  # a third of the way: 1 - (1 - cos 60) / 2
    assert weights(decay_start=1.0) == pytest.approx([1, 1, 1, 1])
