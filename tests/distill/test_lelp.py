"""LELP: directions, targets, the fold, what ships and runs again, and data it does not fit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making_features import DISTILLED_VIT, batch, outputs, setup, side
from torch import Tensor, nn

from edgekd.artifacts import ModelSpec
from edgekd.config import DistillConfig
from edgekd.data import load_dataset
from edgekd.distill import distill
from edgekd.distill.methods._base import Outputs, Side
from edgekd.distill.methods._subclasses import directions, half_entropy
from edgekd.distill.methods.lelp import LELP, Fold, Subclassed
from edgekd.errors import ConfigError
from edgekd.export.onnx import export_fp32
from edgekd.models import build_random, load_checkpoint
from edgekd.models.cifar import CifarResNet
from edgekd.models.onnx import OnnxNetwork
from edgekd.progress import NullProgress
from edgekd.tasks.classification import predict_torch

WIDTH, CLASSES, SUB = 12, 5, 3
STUDENT = Side({}, 6, nn.Linear(6, CLASSES))
TEACHER = Side({}, WIDTH, nn.Linear(WIDTH, CLASSES))


def seen(samples: np.ndarray) -> Outputs:
    """The teacher on images; the first of their labels' embeddings lie apart."""
    generator = torch.Generator().manual_seed(int(samples[0]))
    h = torch.randn(len(samples), WIDTH, generator=generator) + torch.from_numpy(samples % CLASSES)[:, None]
    return Outputs(TEACHER.classifier(h).detach(), None, h)


def prepared(labels: int = 200, **options: object) -> LELP:
    method = LELP(**{"subclasses": SUB, **options})
    numbers = [i % CLASSES for i in range(labels)]
    method.prepare(replace(setup(STUDENT, TEACHER, numbers), taught=seen))
    return method


def test_directions_are_of_the_null_space_and_alike_in_their_class() -> None:
    h, groups = seen(np.arange(2000)).embeddings.double(), torch.arange(2000) % CLASSES
    weight = TEACHER.classifier.weight
    u, offsets = directions(h.float(), groups, weight, SUB, 0)
    assert torch.einsum("kd,cds->kcs", weight, u).abs().max() < 1e-4  # what the logits say is no direction
    scores = torch.einsum("nd,cds->ncs", h.float(), u)[torch.arange(2000), groups] - offsets[groups]
    for c in range(CLASSES):
        own = scores[groups == c]
        assert own.mean(0).abs().max() < 1e-3
        assert own.square().mean().item() == pytest.approx(1, rel=1e-3)
    assert all(
        torch.equal(a, b) for a, b in zip(directions(h.float(), groups, weight, SUB, 0), (u, offsets), strict=True)
    )
    assert not torch.equal(directions(h.float(), groups, weight, SUB, 1)[0], u)


def test_the_largest_spread_is_found() -> None:
    """Embeddings that spread along two axes that the logits do not read: directions are of their plane."""
    generator = torch.Generator().manual_seed(0)
    h = 0.01 * torch.randn(400, 8, generator=generator)
    h[:, 5] += 3 * torch.randn(400, generator=generator)
    h[:, 6] += 2 * torch.randn(400, generator=generator)
    h[:, 0] += 9 * torch.randn(400, generator=generator)  # what the logits read
    weight = torch.zeros(2, 8)
    weight[0, 0] = weight[1, 1] = 1
    u, _ = directions(h, torch.arange(400) % 2, weight, 2, 0)
    others = u[:, [0, 1, 2, 3, 4, 7]]
    assert others.abs().max() < 0.02 * u.abs().max()


def test_the_entropy_is_half() -> None:
    scores = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    log_p = (scores / half_entropy(scores)).log_softmax(1)
    assert -(log_p.exp() * log_p).sum(1).mean().item() == pytest.approx(0.5 * math.log(4), rel=1e-4)


def test_targets_by_hand_keep_the_teachers_classes() -> None:
    method, given = prepared(beta=0.7, temperature=2.0), seen(np.arange(8))
    targets = method.targets(given.logits, given.embeddings).exp().view(8, CLASSES, SUB)
    of_teacher = (given.logits / 2).softmax(1)
    assert torch.allclose(targets.sum(2), of_teacher, atol=1e-5)
    scores = given.embeddings[3] @ method.directions[1] - method.offsets[1]
    assert torch.allclose(targets[3, 1], of_teacher[3, 1] * (scores / 0.7).softmax(0), atol=1e-6)


def test_terms_by_hand() -> None:
    method, given = prepared(alpha=0.25, temperature=2.0), seen(np.arange(8))
    student = torch.randn(8, 6)
    pair = Outputs(STUDENT.classifier(student), None, student)
    terms = method.loss(pair, given, batch(), 0)
    log_q = (method.head(student) / 2).log_softmax(1)
    log_p = method.targets(given.logits, given.embeddings)
    expected = 0.75 * 4 * (log_p.exp() * (log_p - log_q)).sum(1).mean()
    assert terms["lelp"].item() == pytest.approx(expected.item(), rel=1e-5)
    folded = method.head(student).softmax(1).view(8, CLASSES, SUB).sum(2)
    assert terms["ce"].item() == pytest.approx(-0.25 * folded[range(8), batch().labels].log().mean().item(), rel=1e-5)
    assert prepared().loss(pair, given, batch(), 0)["ce"].item() == 0


def test_a_student_with_the_targets_logits_is_perfect() -> None:
    method, given = prepared(), seen(np.arange(8))
    method.head = nn.Identity()
    exact = method.targets(given.logits, given.embeddings)
    pair = Outputs(torch.zeros(8, CLASSES), None, exact)
    method.checked = True
    assert method.loss(pair, given, batch(), 0)["lelp"].item() == pytest.approx(0, abs=1e-5)
    folded = exact.unflatten(1, (CLASSES, SUB)).logsumexp(2)
    assert torch.allclose(folded.softmax(1), given.logits.softmax(1), atol=1e-5)


def test_the_fold_is_exact() -> None:
    fold, x = Fold(6, CLASSES, SUB), torch.randn(4, 6)
    whole = fold.linear(x).softmax(1).view(4, CLASSES, SUB).sum(2)
    assert torch.allclose(fold(x).softmax(1), whole, atol=1e-6)


def test_what_ships_and_what_is_built_again() -> None:
    net = CifarResNet(CLASSES, (1, 1, 1), (4, 4, 6)).eval()
    method = LELP(subclasses=SUB)
    method.prepare(replace(setup(Side({}, 6, net.fc), TEACHER, [i % CLASSES for i in range(200)]), taught=seen))
    shipped, images = method.export(net), torch.randn(3, 3, 16, 16)
    logits: Tensor = shipped(images)
    expected = method.head(net.forward_features(images).mean((2, 3))).unflatten(1, (CLASSES, SUB)).logsumexp(2)
    assert logits.shape == (3, CLASSES) and torch.allclose(logits, expected, atol=1e-5)
    assert isinstance(net.fc, nn.Linear) and net.fc.out_features == CLASSES, "the student was changed"
    again = Subclassed(CifarResNet(CLASSES, (1, 1, 1), (4, 4, 6)), **method.record).eval()
    again.load_state_dict(shipped.state_dict())
    assert torch.equal(again(images), logits)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, {"num_classes": 33}, "with 33 classes it is no better than kd, above 32 it is refused\nUse kd, or set"),
        ({"subclasses": 8}, {}, "class 0 has 40 images, too few or too alike for 8 subclasses"),
        ({}, {"labels": torch.arange(10) % 5}, "class 0 has 2 images, too few"),
        ({}, {"teacher": None}, "needs the teacher network"),
    ],
)
def test_what_it_does_not_fit_is_refused(options: dict, change: dict, message: str) -> None:
    given = replace(setup(STUDENT, TEACHER, [i % CLASSES for i in range(200)]), taught=seen)
    with pytest.raises(ConfigError, match=f"distill.method lelp.*{message}"):
        LELP(**{"subclasses": SUB, **options}).prepare(replace(given, **change))


def test_a_student_with_two_heads_is_refused() -> None:
    network = side(DISTILLED_VIT)
    method = LELP(subclasses=SUB)
    method.prepare(replace(setup(network, TEACHER, [i % CLASSES for i in range(200)]), taught=seen))
    with pytest.raises(ConfigError, match="lelp: the student's logits are made of more than one classifier"):
        method.loss(outputs(network, 0), seen(np.arange(8)), batch(), 0)


def test_a_run_ships_one_graph(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    data = load_dataset("digits")
    data = replace(data, train=data.train[slice(640)], val=data.val[slice(30)], test=data.test[slice(50)])
    spec = ModelSpec("edgekd", "resnet8", 10, data.input_shape, mean=data.mean, std=data.std)
    save_file(build_random(spec, 1).state_dict(), tmp_path / "t.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    teacher = replace(spec, weights=str(tmp_path / "t.safetensors"))
    config = DistillConfig(epochs=1, batch_size=64, views=1, method={"lelp": {"alpha": 0.5}})
    checkpoint = distill(out, teacher=teacher, student=spec, data=data, config=config, seed=0, progress=NullProgress())
    model = load_checkpoint(checkpoint)
    assert isinstance(model, Subclassed)
    export_fp32(model, tmp_path / "s.onnx", data.input_shape, 17)
    graph = OnnxNetwork(tmp_path / "s.onnx", data.input_shape)
    found, expected = (predict_torch(net, data.test.images, data.mean, data.std) for net in (graph, model))
    assert found.shape == (50, 10) and np.abs(found - expected).max() < 1e-4
