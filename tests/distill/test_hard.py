"""HARD: what is done to an image, what the augmentor learns, which images are changed, and the picture of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from edgekd.config import method_choices
from edgekd.distill.methods._augmentor import BOUNDS, NOISE, Augmentor, changed
from edgekd.distill.methods._base import Batch, Network, Outputs, Setup, Side
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.hard import HARD, unit
from edgekd.distill.methods.kd import kd_loss
from edgekd.errors import ConfigError
from edgekd.models.cifar import CifarResNet
from edgekd.report import build_report

NORM = ((0.5,) * 3, (0.25,) * 3, (3, 12, 12))
NAMES = list(BOUNDS)


def batch(n: int = 20) -> Batch:
    rng = np.random.default_rng(0)
    return Batch(rng.integers(0, 256, (n, 12, 12, 3), np.uint8), torch.arange(n) % 5, rng.permutation(100)[:n], 0)


def amounts(**given: float) -> torch.Tensor:
    return torch.tensor([[given.get(name, 0.0) for name in NAMES]])


def net(*widths: int) -> nn.Module:
    torch.manual_seed(sum(widths))
    return CifarResNet(5, (1, 1, 1), widths)


def prepared(**options: object) -> HARD:
    method, student, teacher = HARD(**options), net(4, 4, 6), net(4, 6, 8).eval().requires_grad_(False)
    networks = Network(student, *NORM), Network(teacher, *NORM)
    method.prepare(Setup(Side({}, 6, nn.Linear(6, 5)), None, 5, torch.arange(100) % 5, 0, 10, *networks))
    return method


def test_every_change_by_hand() -> None:
    image = torch.rand(1, 3, 12, 12) * 0.5 + 0.2
    assert torch.allclose(changed(image, amounts()), image, atol=1e-5)
    assert torch.allclose(changed(image, amounts(x=2 / 12))[..., :-1], image[..., 1:], atol=1e-5)
    assert torch.allclose(changed(image, amounts(y=-2 / 12))[..., 1:, :], image[..., :-1, :], atol=1e-5)
    assert torch.allclose(changed(image, amounts(angle=np.pi / 2)), image.rot90(1, (2, 3)), atol=1e-4)
    assert torch.allclose(changed(image, amounts(brightness=0.1)), image + 0.1, atol=1e-5)
    grey = changed(image, amounts(saturation=-30.0))
    assert torch.allclose(grey, image.mean(1, keepdim=True).expand_as(image), atol=1e-5)
    flat = changed(image, amounts(contrast=-30.0))
    assert torch.allclose(flat, image.mean().expand_as(image), atol=1e-5)
    zoomed = changed(image, amounts(zoom=float(np.log(2))))
    middle = F.interpolate(image[..., 3:9, 3:9], 12, mode="bilinear")
    assert torch.allclose(zoomed[..., 2:-2, 2:-2], middle[..., 2:-2, 2:-2], atol=1e-4)


def test_the_augmentor_stays_within_its_bounds_and_is_differentiable() -> None:
    torch.manual_seed(0)
    augmentor, images = Augmentor(3, 1.0), torch.rand(4, 3, 12, 12)
    new = augmentor(images, torch.rand(4, NOISE))
    assert new.shape == images.shape and 0 <= new.min() and new.max() <= 1
    new.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in augmentor.parameters())
    with torch.no_grad():
        assert not torch.equal(augmentor(images, torch.rand(4, NOISE)), new)
        assert (Augmentor(3, 1e-9)(images, torch.rand(4, NOISE)) - images).abs().max() < 1e-4


@pytest.mark.parametrize(("share", "count"), [(0.5, 10), (0.0, 0), (1.0, 20)])
def test_the_share_asked_for_is_changed(share: float, count: int) -> None:
    method, given = prepared(changed=share), batch()
    made = method.transform_batch(given, 3)
    different = (made.pixels != given.pixels).any((1, 2, 3))
    assert different.sum() == count == len(method._changed) and set(given.samples[different]) == set(method._changed)
    assert made.pixels.dtype == np.uint8 and torch.equal(made.labels, given.labels)
    again = method.transform_batch(given, 3)
    assert np.array_equal(again.pixels, made.pixels), "not a function of seed, step and sample"
    there = method.transform_batch(replace(given, pixels=torch.from_numpy(given.pixels)), 3).pixels
    assert np.array_equal(there.numpy(), made.pixels)
    if count:
        assert not np.array_equal(method.transform_batch(given, 4).pixels, made.pixels)


def test_the_augmentor_moves_the_student_and_not_the_teacher() -> None:
    """Followed for some steps, its objective falls, and no network but itself learns from it."""
    method, given = prepared(limit=50.0), batch()
    method._changed = given.samples[:10]
    before = {key: value.clone() for network in method.networks for key, value in network.model.state_dict().items()}
    optimizer = torch.optim.SGD(method.augmentor.parameters(), lr=0.3)
    values = []
    for _ in range(12):
        values.append(method.objective(given, 0).item())
        optimizer.zero_grad()
        method._seen = (given, 0)
        method.backward({"ce": torch.zeros((), requires_grad=True)})
        norm = torch.cat([p.grad.flatten() for p in method.augmentor.parameters()]).norm().item()
        assert norm == pytest.approx(0.1, rel=1e-4)
        optimizer.step()
    assert values[-1] < values[0]
    after = {key: value for network in method.networks for key, value in network.model.state_dict().items()}
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert method.networks[1].model.training and all(p.grad is None for p in method.networks[1].model.parameters())


def test_the_objective_by_hand() -> None:
    method, given = prepared(teacher=2.0, limit=0.001, temperature=3.0), batch(4)
    images = unit(given.pixels, torch.device("cpu"))
    new = method.augmentor(images, method._noise(given, np.arange(4), 5))
    teacher, student = (network for network in method.networks)
    student.model.eval()
    kls = [
        torch.stack([kd_loss(n(new[i : i + 1]), n(images[i : i + 1]), 3.0) / 9 for i in range(4)])
        for n in (teacher, student)
    ]
    expected = (2 * kls[0] - kls[1].clamp(max=0.001)).mean()
    assert method.objective(given, 5).item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-7)


def test_the_loss_is_kd() -> None:
    method, student, teacher = prepared(alpha=0.7, temperature=2.0), torch.randn(8, 5), torch.randn(8, 5)
    given = batch(8)
    terms = method.loss(Outputs(student), Outputs(teacher), given, 1)
    assert terms["hard"].item() == pytest.approx(0.7 * kd_loss(student, teacher, 2.0).item())
    assert terms["ce"].item() == pytest.approx(0.3 * F.cross_entropy(student, given.labels).item(), rel=1e-5)


@pytest.mark.parametrize("channels", [3, 1])
def test_the_picture_is_in_the_report(channels: int, tmp_path: Path) -> None:
    method = prepared()
    assert method.report(tmp_path) == []
    method.transform_batch(batch(), 0)
    method._picture = method._picture[..., :channels]
    (tmp_path / "distill").mkdir()
    notes = method.report(tmp_path / "distill")
    with Image.open(tmp_path / "distill" / "augmentations.png") as picture:
        assert picture.size == (8 * 12, 2 * 12)
    history = [{"epoch": 1, "loss": 1.0, "val_top1": 0.5, "lr": 0.1, "seconds": 1.0}]
    files = {
        "run.json": {"stages": [{"name": "distill", "seconds": 1, "cached": False, "fingerprint": "f"}], "config": {}},
        "distill/stage.json": {"fingerprint": "f"},
        "distill/history.json": history,
        "distill/distill.json": {"notes": notes, "pictures": ["augmentations.png"]},
    }
    for name, record in files.items():
        (tmp_path / name).write_text(json.dumps(record))
    report = build_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert report["distill"]["notes"] == notes and notes[0] in page
    assert f'<img src="{report["distill"]["pictures"][0]}"' in page and "data:image/png;base64,iVBOR" in page


def test_pairs_and_mixing_are_refused() -> None:
    with pytest.raises(ConfigError, match="distill.mixup: hard changes the images itself"):
        prepared().transform_batch(replace(batch(), partners=torch.zeros(20, dtype=torch.long), mix=0.3), 0)
    with pytest.raises(ConfigError, match="hard cannot be listed with makd, which has the answers"):
        make_method(method_choices(["hard", "makd"]), 0.0, 0)
    row = make_method(method_choices("hard"), 0.0, 0)[1]
    assert not row.replayable and not any(row.asks("teacher").values())
