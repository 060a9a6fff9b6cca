"""The contract of design section 5, on every row of the catalogue and on pairs of unlike networks."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.artifacts import ModelSpec
from edgekd.catalog import METHODS, NEEDS, MethodRow
from edgekd.distill.methods._base import Batch, Method, Network, Outputs, Setup, Side
from edgekd.errors import InputError
from edgekd.models import build_model
from edgekd.models.taps import Tapped

CLASSES, SHAPE, BATCH = 7, (3, 32, 32), 8
LABELS = torch.arange(64) % CLASSES
PIXELS = np.random.default_rng(0).integers(0, 256, (BATCH, 32, 32, 3), np.uint8)
BATCHED = Batch(PIXELS, LABELS[:BATCH], np.arange(BATCH), 0)


def resnet(*widths: int) -> nn.Module:
    kwargs = {"depths": (1, 1, 1), "widths": widths}
    return build_model(ModelSpec("edgekd", "cifar-resnet", CLASSES, SHAPE, kwargs))


def vit(name: str) -> nn.Module:
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}
    net: nn.Module = timm.create_model(name, num_classes=CLASSES, **size)
    return net


STUDENTS: dict[str, Callable[[], nn.Module]] = {
    "twin": lambda: resnet(8, 16, 32),  # of the teacher
    "narrow": lambda: resnet(8, 8, 16),
    "mobilenet": lambda: timm.create_model("mobilenetv3_small_050", num_classes=CLASSES),
    "vit": lambda: vit("vit_tiny_patch16_224"),
    "distilled vit": lambda: vit("deit_tiny_distilled_patch16_224"),
}


@cache
def teacher_net() -> nn.Module:
    torch.manual_seed(0)
    return resnet(8, 16, 32).requires_grad_(False)


@dataclass(frozen=True)
class Case:
    """A method prepared for a pair of networks, and what they give for one batch."""

    student: nn.Module
    method: Method
    outputs: Outputs
    teacher: Outputs
    batch: Batch

    def terms(self, method: Method | None = None, order: Tensor | None = None) -> dict[str, Tensor]:
        student, teacher, batch = self.outputs, self.teacher, self.batch
        if order is not None:
            student, teacher = permuted(student, order), permuted(teacher, order)
            rows = order.numpy()
            batch = replace(batch, pixels=batch.pixels[rows], labels=batch.labels[order], samples=batch.samples[rows])
        torch.manual_seed(1)
        return (method or self.method).loss(student, teacher, batch, 0)


def permuted(outputs: Outputs, order: Tensor) -> Outputs:
    features, embeddings = outputs.features, outputs.embeddings
    return Outputs(
        outputs.logits[order],
        None if features is None else {tap: value[order] for tap, value in features.items()},
        None if embeddings is None else embeddings[order],
    )


def setup(row: MethodRow, student: nn.Module, own: Side, teacher: Tapped) -> Setup:
    """With what a training gives, and nothing of the teacher that the row does not ask for."""

    @torch.no_grad()
    def taught(samples: NDArray[np.int64]) -> Outputs:
        return teacher(torch.randn(len(samples), *SHAPE, generator=torch.Generator().manual_seed(int(samples[0]))))

    networks = [Network(net, (0.5,) * 3, (0.25,) * 3, SHAPE) for net in (student, teacher_net())]
    asked = any(row.asks("teacher").values()) or "network" in row.needs
    return Setup(
        own,
        teacher.side if asked else None,
        CLASSES,
        LABELS,
        seed=0,
        steps=10,
        student_network=networks[0],
        teacher_network=networks[1] if "network" in row.needs else None,
        taught=taught,
        table={name: np.arange(len(LABELS), dtype=np.float32) / 64 for name in ("risk", "round")},
        held=lambda step, n: BATCHED,
    )


def make(name: str, pair: str) -> Case:
    """Skips a pair that the method refuses, before the first step or in it."""
    row = METHODS[name]
    torch.manual_seed(0)
    student, method = STUDENTS[pair](), row.load()()
    if pair == "twin":
        student.load_state_dict(teacher_net().state_dict())
    images = torch.randn(BATCH, *SHAPE)
    try:
        watched = Tapped(student.eval(), SHAPE, **row.asks("student"))
        other = Tapped(teacher_net(), SHAPE, **row.asks("teacher"))
        with torch.no_grad():
            targets = other(images)
        method.prepare(setup(row, student, watched.side, other))
        case = Case(student, method, watched(images), targets, BATCHED)
        case.terms(copy.deepcopy(method))
    except InputError as error:
        assert error.what and error.fix
        pytest.skip(f"refused: {error.what}")
    return case


every = pytest.mark.parametrize("name", METHODS)
pairs = pytest.mark.parametrize("pair", [pair for pair in STUDENTS if pair != "twin"])


@every
@pairs
def test_terms_and_gradients(name: str, pair: str) -> None:
    case = make(name, pair)
    terms = case.terms()
    assert terms and ("ce" in terms) == (METHODS[name].owns_labels and "labels" in METHODS[name].needs)
    for term in terms.values():
        assert term.ndim == 0 and term.dtype == torch.float32 and torch.isfinite(term)
    case.method.backward(terms)
    grads = [p.grad for p in case.student.parameters() if p.grad is not None]
    assert any(grad.abs().sum() > 0 for grad in grads) and all(grad.isfinite().all() for grad in grads)
    for key, parameter in case.method.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    assert all(parameter.grad is None for parameter in teacher_net().parameters())
    own = {id(parameter) for parameter in case.method.parameters()}
    assert not own & {id(p) for net in (case.student, teacher_net()) for p in net.parameters()}


@every
def test_it_takes_some_pair(name: str) -> None:
    def taken(pair: str) -> bool:
        try:
            make(name, pair)
        except pytest.skip.Exception:
            return False
        return True

    assert any(taken(pair) for pair in STUDENTS)


@every
@pairs
def test_the_order_of_a_batch_does_not_matter(name: str, pair: str) -> None:
    if not METHODS[name].permutable:
        pytest.skip("the row says it does")
    case = make(name, pair)
    other = copy.deepcopy(case.method)
    expected = case.terms()
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(3))
    for key, term in case.terms(other, order).items():
        assert term.item() == pytest.approx(expected[key].item(), rel=5e-3, abs=1e-4), key


@every
@pairs
def test_bf16_autocast_is_safe(name: str, pair: str) -> None:
    case = make(name, pair)
    other = copy.deepcopy(case.method)
    expected = sum(term.item() for term in case.terms().values())
    with torch.autocast("cpu", torch.bfloat16):
        terms = case.terms(other)
    assert all(torch.isfinite(term) for term in terms.values())
    assert sum(term.item() for term in terms.values()) == pytest.approx(expected, rel=0.05, abs=0.05)


@every
@pairs
def test_the_state_comes_back(name: str, pair: str) -> None:
    """A method restored into a fresh one goes on as the first would have."""
    case, fresh = make(name, pair), make(name, pair).method
    case.terms()
    case.method.after_step(0)
    fresh.load_state_dict(copy.deepcopy(case.method.state_dict()))
    expected, again = case.terms(), case.terms(fresh)
    assert {key: term.item() for key, term in again.items()} == {key: term.item() for key, term in expected.items()}


@every
@pairs
def test_export(name: str, pair: str) -> None:
    case = make(name, pair)
    shipped = case.method.export(case.student)
    if METHODS[name].ships_extra:
        assert shipped.eval()(torch.zeros(2, *SHAPE)).shape == (2, CLASSES)
    else:
        assert shipped is case.student


@every
def test_a_perfect_student_reaches_the_minimum(name: str) -> None:
    case = make(name, "twin")
    minimum = case.method.minimum
    if minimum is None:
        pytest.skip("none is declared")
    with torch.no_grad():
        identities = [as_identity(module) for module in case.method.modules()]
    total = sum(term.item() for key, term in case.terms().items() if key != "ce")
    assert total == pytest.approx(minimum, abs=1e-4) if all(identities) else total >= minimum


def as_identity(module: nn.Module) -> bool:
    """Make a linear map or a convolution the identity, and say whether it could be."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.eval()
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return True
    if module.weight.shape[0] != module.weight.shape[1]:
        return False
    (nn.init.eye_ if isinstance(module, nn.Linear) else nn.init.dirac_)(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return True


@every
def test_its_class_and_its_row(name: str) -> None:
    row, kind = METHODS[name], METHODS[name].load()
    options = inspect.signature(kind).parameters
    assert ("label_smoothing" in options) == row.owns_labels
    assert all(parameter.default is not parameter.empty for parameter in options.values())
    module = inspect.getmodule(kind)
    assert module is not None and module.__doc__ and module.__file__
    assert len(Path(module.__file__).read_text().splitlines()) < 150
    assert row.name == name and row.summary and row.paper and row.anchor and row.tasks
    assert set(row.needs) <= set(NEEDS) and set(row.refuses) <= set(METHODS)
    assert row.family in {"logit", "feature", "relation", "token", "policy"}
