"""CRD: both directions by hand, its negatives, the banks, and a resumed run."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from making_features import SLIM_CNN, WIDE_CNN, batch, detached, embedded, outputs, setup, side
from torch import nn

from edgekd.distill.methods.crd import ContrastiveKD
from edgekd.errors import ConfigError

X, Y = [1.0, 0.0], [0.0, 1.0]


def by_hand() -> ContrastiveKD:
    """Two samples of two classes, so that each is the other's only negative; embeddings are taken as they are."""
    method = ContrastiveKD(dim=2, negatives=1, temperature=1.0)
    method.prepare(setup(side({"x": (2, 1, 1)}), side({"x": (2, 1, 1)}), labels=(0, 1)))
    method.student, method.teacher = nn.Identity(), nn.Identity()
    method.bank_teacher.copy_(torch.tensor([X, Y]))
    method.bank_student.copy_(torch.tensor([Y, X]))
    return method


def test_one_image_by_hand() -> None:
    method = by_hand()
    ours, theirs = embedded(torch.tensor([[5.0, 0.0]]), torch.tensor([[0.1, 0.0]]))  # both of direction X
    # student to teacher bank: positive 1, negative 0; teacher to student bank: positive 0, negative 1.
    # c = (e + 1) / 2 in either direction and K = 1, so h = e^s / (e^s + c).
    c = (math.e + 1) / 2
    forward = -math.log(math.e / (math.e + c)) - math.log(c / (1 + c))
    back = -math.log(1 / (1 + c)) - math.log(c / (math.e + c))
    terms = method.loss(ours, theirs, batch(1), 0)
    assert terms["crd"].item() == pytest.approx(0.8 * (forward + back), rel=1e-5)
    method.log_mean.zero_()  # c = 1 from now on
    forward = math.log(1 + math.exp(-1)) + math.log(2)
    back = math.log(2) + math.log(1 + math.e)
    assert method.loss(ours, theirs, batch(1), 1)["crd"].item() == pytest.approx(0.8 * (forward + back), rel=1e-5)


def test_banks_move_after_the_step_by_hand() -> None:
    method = by_hand()
    method.loss(*embedded(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])), batch(1), 0)
    assert method.bank_student.tolist() == [Y, X] and method.log_mean.isnan().all()
    method.after_step(0)
    half = 2**-0.5
    assert torch.allclose(method.bank_student, torch.tensor([[half, half], X]))
    assert torch.allclose(method.bank_teacher, torch.tensor([[half, half], Y]))
    assert method.log_mean.isfinite().all()


def test_negatives_are_of_other_classes_and_follow_seed_step_and_sample() -> None:
    method = ContrastiveKD(negatives=400)
    method.prepare(setup(side(SLIM_CNN), side(WIDE_CNN)))
    given = batch(samples=[3, 17, 8])
    samples = torch.from_numpy(given.samples)
    rows = method.contrasts(samples, given.labels, step=4)
    assert torch.equal(rows[:, 0], samples)
    labels = torch.arange(40) % 5
    for own, negatives in zip(given.labels.tolist(), rows[:, 1:], strict=True):
        assert set(negatives.tolist()) == set(torch.nonzero(labels != own).flatten().tolist())  # all 32 of 400 draws
    assert torch.equal(method.contrasts(samples.flip(0), given.labels.flip(0), step=4), rows.flip(0))
    assert not torch.equal(method.contrasts(samples, given.labels, step=5), rows)


def test_a_resumed_run_is_exact() -> None:
    networks = side(SLIM_CNN), side(WIDE_CNN)
    dry_run = setup(*networks)

    def run(method: ContrastiveKD, steps: range) -> list[float]:
        losses = []
        for step in steps:
            given = batch(samples=[(8 * step + i) % 40 for i in range(8)])
            ours, theirs = (detached(outputs(n, 10 * step + i)) for i, n in enumerate(networks))
            losses.append(method.loss(ours, theirs, given, step)["crd"].item())
            method.after_step(step)
        return losses

    whole, first, second = ContrastiveKD(), ContrastiveKD(), ContrastiveKD()
    for method in (whole, first, second):
        method.prepare(dry_run)
    losses = run(whole, range(8))
    assert run(first, range(4)) == losses[:4]
    second.load_state_dict(first.state_dict())
    assert run(second, range(4, 8)) == losses[4:]


def test_labels_of_one_class_are_refused() -> None:
    with pytest.raises(ConfigError, match="of one class"):
        ContrastiveKD().prepare(replace(setup(side(SLIM_CNN), side(WIDE_CNN)), labels=torch.ones(9, dtype=torch.long)))
