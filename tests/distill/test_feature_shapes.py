"""Every feature, relation and token method on made-up CNNs and transformers, from `prepare` to the gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making_features import DISTILLED_VIT, SLIM_CNN, VIT, WIDE_CNN, batch, detached, outputs, setup, side
from torch import nn

from edgekd.catalog import METHODS
from edgekd.distill.methods._base import Batch, Method, Outputs, Side

CNNS = ("fitnet", "at", "vid", "ofd", "reviewkd", "cwd", "mgd", "simkd", "ofakd", "mimic", "srrl")
CNNS += ("crd", "sp", "rkd", "pkt", "trg")
CONVOLVE = ("reviewkd", "mgd", "simkd", "vid", "ofakd")  # adapters of several convolutions run as the networks do
SAME = {f"layer{i}": (c, s, s) for i, c, s in ((1, 4, 8), (2, 8, 4), (3, 12, 2))}
PAIRS = {
    "narrower CNN": (SAME, WIDE_CNN),
    "other CNN": (SLIM_CNN, WIDE_CNN),
    "wider CNN": (WIDE_CNN, SLIM_CNN),
    "CNN to ViT": (VIT, WIDE_CNN),
}
CASES = [(name, *PAIRS[pair]) for name in CNNS for pair in PAIRS] + [("token", DISTILLED_VIT, WIDE_CNN)]
CASES += [(name, SLIM_CNN, VIT) for name in CNNS if name != "simkd"]
IDS = [f"{name}-{list(s)[-1]}-{list(t)[-1]}" for name, s, t in CASES]


def prepared(name: str, student: Side, teacher: Side) -> Method:
    method: Method = METHODS[name].load()()
    method.prepare(setup(student, teacher))
    return method


def total(method: Method, ours: Outputs, theirs: Outputs, given: Batch) -> torch.Tensor:
    terms = method.loss(ours, theirs, given, 2)
    assert all(term.ndim == 0 and term.dtype == torch.float32 for term in terms.values())
    return sum(terms.values(), torch.zeros(()))


def reorder(given: Outputs, order: torch.Tensor) -> Outputs:
    return Outputs(given.logits[order], {k: v[order] for k, v in given.features.items()}, given.embeddings[order])


@pytest.mark.parametrize(("name", "student", "teacher"), CASES, ids=IDS)
def test_from_shapes_to_gradients(name: str, student, teacher) -> None:
    sides = side(student), side(teacher)
    method = prepared(name, *sides)
    ours, theirs = outputs(sides[0], 0, grad=True), detached(outputs(sides[1], 1))
    loss = total(method, ours, theirs, batch())
    assert loss.isfinite()
    loss.backward()
    assert any(x.grad is not None and x.grad.abs().sum() > 0 for x in ours.features.values())
    starved = [key for key, p in method.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not starved, "an adapter got no gradient"
    assert all(p.grad is None for p in sides[1].classifier.parameters())
    owned = {id(p) for p in method.parameters()}
    assert not owned & {id(p) for s in sides for p in s.classifier.parameters()}


@pytest.mark.parametrize(("name", "student", "teacher"), CASES, ids=IDS)
def test_batch_order_autocast_and_checkpoints_do_not_matter(name: str, student, teacher) -> None:
    sides = side(student), side(teacher)
    method = prepared(name, *sides)
    ours, theirs = (detached(outputs(s, i)) for i, s in enumerate(sides))
    given = batch()
    loss = total(method, ours, theirs, given).item()
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    moved = Batch(given.pixels, given.labels[order], np.ascontiguousarray(given.samples[order]), 0)
    assert total(method, reorder(ours, order), reorder(theirs, order), moved).item() == pytest.approx(loss, rel=1e-4)

    with torch.autocast("cpu", torch.bfloat16):
        rel = 0.05 if name in CONVOLVE else 1e-5
        assert total(method, ours, theirs, given).item() == pytest.approx(loss, rel=rel)
    features = {tap: x.bfloat16() for tap, x in ours.features.items()}
    half = Outputs(ours.logits.bfloat16(), features, ours.embeddings.bfloat16())
    assert total(method, half, theirs, given).item() == pytest.approx(loss, rel=0.1)

    method.after_step(2)
    again = prepared(name, *sides)
    again.load_state_dict(method.state_dict())
    assert total(again, ours, theirs, given).item() == total(method, ours, theirs, given).item()


@pytest.mark.parametrize("name", [*CNNS, "token"])
def test_rows_say_what_the_class_does(name: str) -> None:
    row = METHODS[name]
    method = row.load()()
    shapes = (DISTILLED_VIT if name == "token" else SLIM_CNN), WIDE_CNN
    sides = side(shapes[0]), side(shapes[1])
    method.prepare(setup(*sides))
    ours, theirs = (detached(outputs(s, i)) for i, s in enumerate(sides))
    ours, theirs = (
        Outputs(x.logits, x.features if asked["features"] else None, x.embeddings if asked["embeddings"] else None)
        for x, asked in ((ours, row.asks("student")), (theirs, row.asks("teacher")))
    )
    terms = method.loss(ours, theirs, batch(), 0)
    assert ("ce" in terms) == row.owns_labels == hasattr(method, "label_smoothing")
    assert row.replayable == (not row.asks("teacher")["features"])
    assert type(method).minimum in (None, 0.0)
    if not row.ships_extra:
        net = nn.Linear(1, 1)
        assert method.export(net) is net
