"""TAID: its golden values, the way of t by hand, what it wraps, and state that goes on where it was."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from logit_rows import prepared, random_rows, run
from torch.nn import functional as F

from edgekd.config import method_choices
from edgekd.distill.methods import taid
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.dkd import DKD
from edgekd.distill.methods.kd import KD, kd_loss
from edgekd.distill.methods.taid import TAID, Interpolation
from edgekd.errors import ConfigError

S, T = torch.tensor([[2, 0.5, -1, 0]]), torch.tensor([[3, 1, -2, 0.5]])


def test_golden_values() -> None:
    moving = Interpolation(0.4)
    target = moving(S, T)
    assert target.softmax(1)[0].tolist() == pytest.approx([0.759961, 0.138832, 0.017001, 0.084206], abs=1e-6)
    assert moving._seen[0].item() == pytest.approx(0.770013, abs=1e-6)
    assert kd_loss(S, target, 1.0).item() == pytest.approx(0.009653, abs=1e-6)


def test_the_way_of_t_by_hand() -> None:
    moving = Interpolation(start=0.2, end=0.9, alpha=0.1, beta=0.75)

    def follow(loss: float, done: float) -> float:
        moving._seen.append(torch.tensor(loss, dtype=torch.float64))
        moving.update(done)
        return moving.t.item()

    assert follow(2.0, 0.01) == pytest.approx(0.2)  # the first is only kept
    m = 0.25 * 0.5  # from 2 to 1
    t = 0.2 + 0.1 * 0.8 / (1 + math.exp(-m))
    assert follow(1.0, 0.02) == pytest.approx(t) and t > 0.2 + 0.7 * 0.02
    m = 0.75 * m + 0.25 * (1 - 3)  # up to 3
    t += 0.1 * (1 - t) / (1 + math.exp(-m))
    assert follow(3.0, 0.03) == pytest.approx(t)
    assert follow(3.0, 0.8) == pytest.approx(0.2 + 0.7 * 0.8)  # the line
    assert follow(3.0, 1.0) == pytest.approx(0.9)


def test_a_constant_loss_follows_the_line_but_for_half_of_alpha() -> None:
    moving = Interpolation(start=0.4, alpha=0.0)
    for step in range(10):
        moving(S, T)
        moving.update((step + 1) / 10)
        assert moving.t.item() == pytest.approx(0.4 if step == 0 else 0.4 + 0.6 * (step + 1) / 10)


def test_parts_of_a_step_count_together() -> None:
    whole, parts = Interpolation(), Interpolation()
    student, teacher, _ = random_rows(n=6)
    whole(student, teacher)
    for rows in (slice(0, 3), slice(3, 6)):
        parts(student[rows], teacher[rows])
    for moving in (whole, parts):
        moving.update(0.1)
    assert parts.previous.item() == pytest.approx(whole.previous.item(), rel=1e-6) and not parts._seen


def test_all_processes_take_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taid, "average", lambda values: [value.mul_(2) for value in values])
    moving = Interpolation()
    moving(S, T)
    moving.update(0.1)
    assert moving.previous.item() == pytest.approx(2 * 0.770013, abs=1e-5)


@pytest.mark.parametrize("name", ["kd", "dkd", "topkld", "pld", "ttm", "dist"])
def test_any_method_of_logits_learns_from_the_moving_target(name: str) -> None:
    student, teacher, labels = random_rows()
    method, row = make_method(method_choices({"taid": {"method": name}}), 0.1, 0)
    alone, own = make_method(method_choices(name), 0.1, 0)
    assert isinstance(method, TAID) and row.needs == own.needs
    assert (row.min_classes, row.top_logits) == (own.min_classes, own.top_logits)
    for each in (method, alone):
        prepared(each, 5)
    found = run(method, student, teacher, labels)
    expected = run(alone, student, torch.lerp(student, teacher, 0.4), labels)
    assert {k: v.item() for k, v in found.items()} == {k: pytest.approx(v.item()) for k, v in expected.items()}


def test_a_list_and_options_can_be_wrapped() -> None:
    method = TAID(method=[{"dkd": {"beta": 2.0}}, {"sinkd": {"weight": 1.0}}])
    assert isinstance(method.method.methods[0], DKD) and method.method.methods[0].beta == 2.0
    assert set(run(prepared(method, 5), *random_rows())) == {"ce", "tckd", "nckd", "sinkd"}
    assert isinstance(TAID().method, KD)
    with pytest.raises(ConfigError, match="distill.method.kd: unknown option temprature"):
        TAID(method={"kd": {"temprature": 1}})


def test_the_papers_loss_and_its_gradient() -> None:
    """Cross-entropy with p_t and no label; to first order in t the gradient is t times that of KD."""
    student, teacher, labels = random_rows(n=4)
    student.requires_grad_()
    method = prepared(TAID(method={"kd": {"temperature": 1.0, "alpha": 1.0}}, start=1e-3), 5)
    sum(run(method, student, teacher, labels).values()).backward()
    q = student.detach().softmax(1)
    gap = teacher - student.detach()
    expected = -1e-3 * (q * gap - q * (q * gap).sum(1, keepdim=True)) / 4
    assert torch.allclose(student.grad, expected, atol=1e-6)


def test_a_run_moves_t_to_its_end_and_goes_on_from_its_state() -> None:
    student, teacher, labels = random_rows()
    method = prepared(TAID(alpha=0.5), 5, steps=6)
    states = []
    for step in range(6):
        run(method, student + step * (teacher - student) / 6, teacher, labels, step)
        method.after_step(step)
        states.append(copy.deepcopy(method.state_dict()))
    t = [state["interpolation.t"].item() for state in states]
    assert t == sorted(t) and t[0] == pytest.approx(0.4) and t[-1] == 1.0 and t[2] > 0.4 + 0.6 * 3 / 6
    again = prepared(TAID(alpha=0.5), 5, steps=6)
    again.load_state_dict(states[2])
    for step in range(3, 6):
        run(again, student + step * (teacher - student) / 6, teacher, labels, step)
        again.after_step(step)
    assert all(torch.equal(value, states[-1][key]) for key, value in again.state_dict().items())


def test_it_warms_up_any_loop() -> None:
    """Without a trainer: the loss, the target and its update are three calls."""
    torch.manual_seed(0)
    x, net = torch.randn(64, 8), torch.nn.Linear(8, 4)
    teacher = x @ torch.randn(8, 4)
    moving, optimizer = Interpolation(start=0.2), torch.optim.SGD(net.parameters(), lr=0.5)
    before = F.mse_loss(net(x).softmax(1), teacher.softmax(1)).item()
    for step in range(200):
        logits = net(x)
        loss = kd_loss(logits, moving(logits, teacher), 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moving.update((step + 1) / 200)
    assert moving.t == 1 and F.mse_loss(net(x).softmax(1), teacher.softmax(1)).item() < before / 20


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"taid": {"method": "fitnet"}}, "fitnet needs features, and only the teacher's logits are moved\nWrap"),
        ({"taid": {"method": "mixkd"}}, "mixkd needs live"),
        ({"taid": {"method": ["kd", "dhkd"]}}, "kd [+] dhkd needs student_embeddings"),
        ({"taid": {"method": "kdd"}}, "unknown name 'kdd'"),
        (["kd", "taid"], "kd and taid both own the hard-label term"),
        ({"taid": {"start": 0.9, "end": 0.5}}, "end 0.5 is below start 0.9"),
        ({"taid": {"start": 1.5}}, "distill.method taid: start is 1.5"),
    ],
)
def test_what_does_not_fit_is_refused(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_method(method_choices(value), 0.0, 0)
