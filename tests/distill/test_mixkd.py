"""MixKD: its golden values, which images are mixed and how, the loss of a mixed batch, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from logit_rows import prepared, random_rows, run
from torch.nn import functional as F

from edgekd.config import method_choices
from edgekd.distill.methods._base import Batch, Outputs
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.mixkd import MixKD
from edgekd.errors import ConfigError

S, T = torch.tensor([[2, 0.5, -1, 0]]), torch.tensor([[3, 1, -2, 0.5]])


def batch(n: int = 40) -> Batch:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (n, 6, 6, 3), np.uint8)
    return Batch(pixels, torch.arange(n) % 5, generator.permutation(1000)[:n], 0)


def test_golden_values() -> None:
    assert S.std(1).item() == pytest.approx(1.25) and T.std(1).item() == pytest.approx(2.056494, abs=1e-6)
    terms = run(prepared(MixKD()), S, T, torch.tensor([0]))
    assert terms["mixkd"].item() == pytest.approx(0.9 * 0.011254, abs=1e-6)
    assert terms["ce"].item() == pytest.approx(0.1 * F.cross_entropy(S / 1.25, torch.tensor([0])).item(), rel=1e-5)


def test_the_scale_of_neither_side_matters() -> None:
    student, teacher, labels = random_rows()
    method = prepared(MixKD(), 5)
    terms, scaled = (run(method, a * student, b * teacher, labels) for a, b in ((1, 1), (7, 0.3)))
    assert {k: v.item() for k, v in scaled.items()} == {k: pytest.approx(v.item(), rel=1e-4) for k, v in terms.items()}


@pytest.mark.parametrize(("mixed", "count"), [(0.1, 4), (0.0, 0), (1.0, 40), (0.33, 13)])
def test_the_share_asked_for_is_mixed(mixed: float, count: int) -> None:
    method, given = prepared(MixKD(mixed=mixed)), batch()
    made = method.transform_batch(given, 3)
    assert int((made.mix < 1).sum()) == count and made.mix.min() >= 0
    mix = made.mix.numpy()[:, None, None, None]
    expected = mix * given.pixels + (1 - mix) * given.pixels[::-1]
    assert made.pixels.dtype == np.uint8 and np.abs(made.pixels - expected).max() <= 0.5 + 1e-3
    whole = made.mix == 1
    assert np.array_equal(made.pixels[whole.numpy()], given.pixels[whole.numpy()])
    assert torch.equal(made.labels, given.labels) and torch.equal(made.partners, given.labels.flip(0))


def test_shares_are_uniform_and_a_function_of_seed_step_and_sample() -> None:
    method, given = prepared(MixKD(mixed=1.0)), batch(1000)
    mix = method.transform_batch(given, 3).mix
    assert mix.mean().item() == pytest.approx(0.5, abs=0.03) and mix.std().item() == pytest.approx(12**-0.5, abs=0.02)
    assert torch.equal(method.transform_batch(given, 3).mix, mix)
    assert not torch.equal(method.transform_batch(given, 4).mix, mix)
    order = np.random.default_rng(1).permutation(1000)
    moved = replace(given, pixels=given.pixels[order], labels=given.labels[order], samples=given.samples[order])
    assert torch.equal(method.transform_batch(moved, 3).mix, mix[order])


def test_pixels_on_a_device_are_mixed_alike() -> None:
    method, given = prepared(MixKD(mixed=0.5)), batch()
    there = method.transform_batch(replace(given, pixels=torch.from_numpy(given.pixels)), 0).pixels
    assert np.abs(there.numpy().astype(int) - method.transform_batch(given, 0).pixels).max() <= 1


def test_the_loss_of_a_mixed_batch() -> None:
    student, teacher, _ = random_rows(n=40)
    method = prepared(MixKD(mixed=0.5), 5)
    made = method.transform_batch(batch(), 0)
    terms = method.loss(Outputs(student), Outputs(teacher), made, 0)
    target = made.mix[:, None] * F.one_hot(made.labels, 5) + (1 - made.mix)[:, None] * F.one_hot(made.partners, 5)
    log_p = (student / student.std(1, keepdim=True)).log_softmax(1)
    assert terms["ce"].item() == pytest.approx(-0.1 * (target * log_p).sum(1).mean().item(), rel=1e-5)
    halves = [method.loss(Outputs(student[r]), Outputs(teacher[r]), made[r], 0) for r in (slice(0, 20), slice(20, 40))]
    for key, term in terms.items():
        assert sum(half[key].item() for half in halves) / 2 == pytest.approx(term.item(), rel=1e-5)


def test_images_that_are_mixed_already_are_refused() -> None:
    given = replace(batch(), partners=torch.zeros(40, dtype=torch.long), mix=0.3)
    with pytest.raises(ConfigError, match="distill.mixup: mixkd mixes the images itself\nSet distill.mixup to 0"):
        prepared(MixKD()).transform_batch(given, 0)


@pytest.mark.parametrize("other", ["crd", "ofakd"])
def test_readers_of_one_label_are_refused(other: str) -> None:
    for value in (["mixkd", other], [other, "mixkd"]):
        with pytest.raises(ConfigError, match=f"mixkd cannot be listed with {other}, which goes by one label"):
            make_method(method_choices(value), 0.0, 0)
    method, row = make_method(method_choices(["mixkd", "rkd"]), 0.0, 0)
    assert method.transform_batch(batch(), 0).partners is not None and not row.replayable
