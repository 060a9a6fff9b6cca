"""Swing: the terms by hand, KD without risk, noise that does not average out, and the exposure of canaries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from logit_rows import prepared as without_table
from logit_rows import random_rows, run
from torch import nn
from torch.nn import functional as F

from edgekd.config import method_choices
from edgekd.distill.methods._base import Batch, Setup, Side
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.kd import KD
from edgekd.distill.methods.swing import Swing
from edgekd.distill.privacy import cross_entropies, exposure, memorisation
from edgekd.errors import ConfigError

RISKS = np.array([0, 0.25, 0.5, 1, 0, 1] * 10, np.float32)


def prepared(risks=RISKS, seed: int = 0, **options: float) -> Swing:
    method = Swing(**options)
    given = Setup(Side({}, 3, nn.Linear(3, 5)), None, 5, torch.arange(60) % 5, seed, 10)
    method.prepare(replace(given, table={"risk": risks}))
    return method


def test_terms_by_hand() -> None:
    student, teacher, labels = random_rows()
    method = prepared(low=2.0, high=10.0, sigma=0.0, alpha=0.7)
    terms = run(method, student, teacher, labels)
    tau = [2.0, 4.0, 6.0, 10.0, 2.0, 10.0]
    kls, ces = [], []
    for i, (t, r) in enumerate(zip(tau, RISKS, strict=False)):
        p, log_q = (teacher[i] / t).softmax(0), (student[i] / t).log_softmax(0)
        kls.append((p * (p.log() - log_q)).sum())
        ces.append((1 - float(r)) * F.cross_entropy(student[i], labels[i]))
    assert terms["swing"].item() == pytest.approx(0.7 * 4 * torch.stack(kls).mean().item(), rel=1e-4)
    assert terms["ce"].item() == pytest.approx(0.3 * torch.stack(ces).mean().item(), rel=1e-4)


def test_without_risk_it_is_kd() -> None:
    rows = random_rows()
    ours, kd = run(prepared(0 * RISKS), *rows), run(without_table(KD(), 5), *rows)
    assert ours["swing"].item() == pytest.approx(kd["kd"].item(), rel=1e-5)
    assert ours["ce"].item() == pytest.approx(kd["ce"].item(), rel=1e-5)


def test_noise_is_normal_and_that_of_the_image() -> None:
    method, risks, samples = prepared(), torch.ones(2000), torch.arange(2000)
    flat = torch.zeros(2000, 5)
    log_p = method.targets(flat, risks, samples)
    noise = log_p - log_p.mean(1, keepdim=True)  # up to the row's mean
    assert noise.std().item() == pytest.approx((4 / 5) ** 0.5, abs=0.02) and noise.mean().abs() < 0.02
    assert noise.isfinite().all()
    again = method.targets(flat.flip(0), risks, samples.flip(0)).flip(0)
    assert torch.equal(again, log_p), "it must not depend on the place in the batch, nor on the step"
    assert not torch.equal(prepared(seed=1).targets(flat, risks, samples), log_p)
    quiet = method.targets(flat[:6], torch.from_numpy(RISKS[:6]), samples[:6]).exp()
    assert torch.allclose(quiet[0], torch.full((5,), 0.2)) and (quiet[3] - 0.2).abs().max() > 0.02


def test_more_risk_says_less() -> None:
    teacher = 8 * torch.eye(5)
    method, samples = prepared(sigma=0.0), torch.arange(5)
    said = [method.targets(teacher, torch.full((5,), r), samples).exp().diag().mean().item() for r in (0.0, 0.5, 1.0)]
    assert said[0] > said[1] > said[2] > 0.2


def test_one_risk_for_all_needs_no_table() -> None:
    for options, needs in (({}, True), ({"risk": 0.3}, False)):
        row = make_method(method_choices({"swing": options}), 0.0, 0)[1]
        assert ("table" in row.needs) == needs and row.replayable
    assert without_table(Swing(risk=0.3), 5).risks.tolist() == pytest.approx([0.3] * 60)


def test_the_report_says_what_it_is_not() -> None:
    (note,) = prepared().report(Path())
    assert (
        "40 of 60 training images at risk, on average 0.458" in note and "no guarantee of differential privacy" in note
    )


def test_what_does_not_serve_is_refused() -> None:
    with pytest.raises(ConfigError, match="column 'risk'\nAdd one"):
        method = Swing()
        method.prepare(Setup(Side({}, 3, nn.Linear(3, 5)), None, 5, torch.arange(60), 0, 10, table={"x": RISKS}))
    with pytest.raises(ConfigError, match="risk of distill.table goes from 0 to 2"):
        prepared(2 * RISKS)
    with pytest.raises(ConfigError, match="swing: high 1.0 is below low 4.0"):
        Swing(high=1.0)
    mixed = Batch(np.zeros((2, 4, 4, 3), np.uint8), torch.zeros(2).long(), np.arange(2), 0, torch.zeros(2).long(), 0.4)
    with pytest.raises(ConfigError, match="distill.mixup: a mixed image has two risks"):
        prepared().transform_batch(mixed, 0)


def test_exposure_by_hand() -> None:
    others = np.array([1.0, 2, 3, 4, 5, 6, 7])  # |R| = 8
    assert exposure(np.array([0.5, 1.5, 3.5, 9.0]), others).tolist() == pytest.approx([3, 2, 1, 0])
    assert exposure(np.array([1.0]), others)[0] == pytest.approx(3 - np.log2(1.5))


def test_exposure_of_what_was_not_learned() -> None:
    rng = np.random.default_rng(0)
    bits = exposure(rng.random(4000), rng.random(4000))
    assert bits.mean() == pytest.approx(1 / np.log(2), abs=0.05) and bits.max() <= np.log2(4001)


def test_risks_and_losses() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)) + 7
    assert cross_entropies(logits, np.array([0, 2])).tolist() == pytest.approx([np.log(2), -np.log(0.8)], abs=1e-6)
    assert memorisation(np.array([0.1, 2.0]), np.array([0.1 + np.log(4), 1.0])).tolist() == pytest.approx([0.75, 0])
