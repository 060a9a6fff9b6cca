"""TGeo-KD: the geometry and the terms by hand, the unrolled step against finite differences, what is held out."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd import processes
from edgekd.artifacts import ModelSpec
from edgekd.config import DistillConfig, method_choices
from edgekd.data import load_dataset
from edgekd.distill import distill
from edgekd.distill.methods import tgeo
from edgekd.distill.methods._base import Batch, Network, Outputs, Setup, Side
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods._geometry import geometry
from edgekd.distill.methods.kd import kd_loss
from edgekd.distill.methods.tgeo import TGeo
from edgekd.distill.trainer import Trainer
from edgekd.errors import ConfigError
from edgekd.progress import NullProgress

CLASSES = 3
LABELS = torch.arange(30) % CLASSES
NORM = ((0.5,) * 3, (0.25,) * 3, (3, 4, 4))


def batch(seed: int, n: int = 6) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(rng.integers(0, 256, (n, 4, 4, 3), np.uint8), torch.arange(n) % CLASSES, np.arange(n), 0)


def taught(samples: np.ndarray) -> Outputs:
    return Outputs(torch.randn(len(samples), CLASSES, generator=torch.Generator().manual_seed(int(samples[0]))))


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(4, CLASSES)).double()


def prepared(model: nn.Module | None = None, **options: object) -> TGeo:
    method = TGeo(**options)
    side = Side({}, 4, nn.Linear(4, CLASSES))
    own = Network(model or net(), *NORM)
    given = Setup(side, None, CLASSES, LABELS, 0, 10, own, taught=taught, held=lambda step, n: batch(100 + step, n))
    method.prepare(given)
    return method


def test_the_geometry_by_hand() -> None:
    s, t, m = (torch.tensor([row]) for row in ([0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [0.6, 0.2, 0.2]))
    full = geometry(s, t, m, torch.tensor([0]), scalars=False)[0]
    assert full.shape == (27,) and full[:12].tolist() == pytest.approx(
        [0.5, 0.3, 0.2, 0.7, 0.2, 0.1, 1, 0, 0, 0.6, 0.2, 0.2]
    )
    squares = [[0.01, 0.01, 0], [0.25, 0.09, 0.04], [0.04, 0.01, 0.01], [0.09, 0.04, 0.01], [0.16, 0.04, 0.04]]
    assert full[12:].tolist() == pytest.approx(sum(squares, []), abs=1e-6)
    few = geometry(s, t, m, torch.tensor([0]), scalars=True)[0].tolist()
    assert few == pytest.approx([0.5, 0.7, 0.6, 0.5, 0.7, *(sum(row) ** 0.5 for row in squares)], abs=1e-6)


def test_means_of_the_classes() -> None:
    method, p = prepared(), taught(np.arange(30)).logits.softmax(1)
    for c in range(CLASSES):
        assert torch.allclose(method.means[c], p[LABELS == c].mean(0), atol=1e-6)
    assert prepared(scalars=True).controller[0].in_features == 10 and method.controller[0].in_features == 27


def test_terms_by_hand() -> None:
    method, given = prepared(), batch(0)
    student, teacher = torch.randn(6, CLASSES, requires_grad=True), torch.randn(6, CLASSES)
    terms = method.loss(Outputs(student), Outputs(teacher), given, 1)
    a = method.ratio(student, teacher, given.labels)
    assert a.shape == (6,) and 0 < a.min() and a.max() < 1 and len(set(a.tolist())) == 6
    kls = torch.stack([kd_loss(student[i : i + 1], teacher[i : i + 1], 1.5) for i in range(6)])
    ces = F.cross_entropy(student, given.labels, reduction="none")
    assert terms["tgeo"].item() == pytest.approx((a * kls).mean().item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(((1 - a) * ces).mean().item(), rel=1e-5)
    sum(terms.values()).backward()
    assert all(p.grad is None for p in method.parameters()), "the inner loss must not train the controller"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_hypergradient_is_that_of_a_real_step(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finite differences of the held-out loss after a step that is really taken, in double precision."""
    monkeypatch.setattr(tgeo, "normalise", lambda p, m, s: torch.from_numpy(p).permute(0, 3, 1, 2).double() / 255)
    monkeypatch.setattr(Tensor, "float", lambda self: self)
    model = net()
    method = prepared(model, rate=0.5)
    generator = torch.Generator().manual_seed(seed)
    teacher, a = (torch.rand(*shape, generator=generator).double() for shape in ((6, CLASSES), (6,)))
    given, held = batch(seed), batch(100 + 7)

    def after_a_step(a: Tensor) -> float:
        copy = deepcopy(model)
        divergence, ce = method.parts(copy(tgeo.normalise(given.pixels, 0, 0)), teacher, given.labels)
        (a * divergence + (1 - a) * ce).mean().backward()
        with torch.no_grad():
            for p in copy.parameters():
                p -= 0.5 * p.grad
        return F.cross_entropy(copy(tgeo.normalise(held.pixels, 0, 0)), held.labels).item()

    before = {key: v.clone() for key, v in model.state_dict().items()}
    found = method.hypergradient(a, given, teacher, 7)
    h = 1e-5 * torch.eye(6, dtype=torch.float64)
    expected = [(after_a_step(a + h[i]) - after_a_step(a - h[i])) / 2e-5 for i in range(6)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5) and found.abs().max() > 1e-5
    assert all(torch.equal(v, before[key]) for key, v in model.state_dict().items()), "the virtual step was real"


def test_the_controller_learns_every_few_steps() -> None:
    model = net().float()
    method = prepared(model, every=3)
    for step in range(5):
        logits = model(torch.randn(6, 3, 4, 4))
        method.backward(method.loss(Outputs(logits), Outputs(torch.randn(6, CLASSES)), batch(step), step))
        norms = [p.grad for p in method.controller.parameters()]
        if step % 3:
            assert all(g is None for g in norms)
        else:
            assert torch.cat([g.flatten() for g in norms]).norm().item() == pytest.approx(0.1, rel=1e-4)
        assert all(p.grad is not None for p in model.parameters())
        method.zero_grad()
        model.zero_grad()


@pytest.mark.parametrize("targets", ["replay", "live"])
def test_a_run_holds_a_part_of_the_training_images_out(
    targets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset("digits")
    data = replace(data, train=data.train[slice(400)], val=data.val[slice(30)])
    spec = ModelSpec("edgekd", "resnet8", 10, data.input_shape, mean=data.mean, std=data.std)
    trained: list[int] = []
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda self, b: (trained.extend(b.samples.tolist()), step(self, b))[1])
    held: list[int] = []
    draw = Trainer._held
    monkeypatch.setattr(Trainer, "_held", lambda self, *a: (held.extend((b := draw(self, *a)).samples.tolist()), b)[1])
    config = DistillConfig(epochs=2, batch_size=32, views=2, targets=targets, method={"tgeo": {"every": 3}})
    from safetensors.torch import save_file

    from edgekd.models import build_random

    save_file(build_random(spec, 1).state_dict(), tmp_path / "t.safetensors")
    teacher = replace(spec, weights=str(tmp_path / "t.safetensors"))
    distill(tmp_path, teacher=teacher, student=spec, data=data, config=config, seed=0, progress=NullProgress())
    assert set(held) and not set(held) & set(trained)
    assert len(set(trained) | set(held)) <= 400 and len(set(trained)) >= 352


def test_what_it_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="distill.mixup: tgeo goes by one label"):
        prepared().transform_batch(replace(batch(0), partners=torch.zeros(6, dtype=torch.long), mix=0.5), 0)
    with pytest.raises(ConfigError, match="distill.method tgeo: hold_out is 0.7"):
        TGeo(hold_out=0.7)
    with pytest.raises(ConfigError, match="tgeo and dhkd both change the gradient"):
        make_method(method_choices(["tgeo", {"dhkd": {"align": True}}]), 0.0, 0)
    with pytest.raises(ConfigError, match="tgeo needs held_out"):
        make_method(method_choices({"taid": {"method": "tgeo"}}), 0.0, 0)
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ConfigError, match="has no forward-mode derivative\nTrain with one"):
        prepared()
