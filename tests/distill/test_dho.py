"""DHO: the two streams' terms, the mixture and how it is chosen, what ships, and runs with few labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making_features import DISTILLED_VIT, batch, outputs, setup, side
from torch import nn
from torch.nn import functional as F

from edgekd.artifacts import ModelSpec
from edgekd.config import DistillConfig, method_choices
from edgekd.data import Dataset, Split, load_dataset
from edgekd.distill import distill
from edgekd.distill.methods._base import Network, Outputs, Side
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.dho import DHO, DualHead, Mixture, chosen
from edgekd.distill.methods.kd import kd_loss
from edgekd.errors import ConfigError
from edgekd.export.onnx import export_fp32
from edgekd.models import build_random, load_checkpoint
from edgekd.models.cifar import CifarResNet
from edgekd.models.onnx import OnnxNetwork
from edgekd.progress import NullProgress
from edgekd.tasks.classification import predict_torch, top1

STUDENT = Side({}, 6, nn.Linear(6, 5))
LABELS = torch.tensor([0, -1, 1, -1, 2, -1, 3, -1])


def given(n: int = 8) -> tuple[Outputs, Outputs]:
    z = torch.randn(n, 6, requires_grad=True)
    return Outputs(STUDENT.classifier(z), None, z), Outputs(torch.randn(n, 5))


def prepared(**options: float) -> DHO:
    method = DHO(**options)
    method.prepare(setup(STUDENT, None))
    return method


def test_terms_by_hand() -> None:
    method, (student, teacher) = prepared(ce_weight=0.25, temperature=3.0), given()
    terms = method.loss(student, teacher, replace(batch(), labels=LABELS), 0)
    z, known, u = student.embeddings, slice(0, None, 2), slice(1, None, 2)
    expected = kd_loss(method.head(z[known]), teacher.logits[known], 3.0) + kd_loss(
        method.head(z[u]), teacher.logits[u], 3.0
    )
    assert terms["dho"].item() == pytest.approx(0.75 * expected.item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(
        0.25 * F.cross_entropy(student.logits[known], LABELS[known]).item(), rel=1e-5
    )


def test_each_head_learns_its_own() -> None:
    method, (student, teacher) = prepared(), given()
    STUDENT.classifier.zero_grad()
    terms = method.loss(student, teacher, replace(batch(), labels=LABELS), 0)
    terms["ce"].backward(retain_graph=True)
    assert all(p.grad is None for p in method.parameters()) and STUDENT.classifier.weight.grad is not None
    assert (student.embeddings.grad[1::2] == 0).all(), "an image without a label reached the head of the labels"
    student.embeddings.grad = STUDENT.classifier.weight.grad = None
    terms["dho"].backward()
    assert STUDENT.classifier.weight.grad is None and (student.embeddings.grad.abs().sum(1) > 0).all()


def test_the_mixture_by_hand() -> None:
    mixture, z = Mixture(6, 5, 0.3), torch.randn(4, 6)
    both = mixture.linear(z)
    expected = 0.3 * both[:, :5].softmax(1) + 0.7 * both[:, 5:].softmax(1)
    assert torch.allclose(mixture(z).exp(), expected, atol=1e-6)
    assert torch.allclose(mixture(z).softmax(1), expected, atol=1e-6), "softmax of what ships is the mixture"


def test_the_better_head_is_chosen_and_the_middle_of_equals() -> None:
    rng, truth = np.random.default_rng(0), np.arange(200) % 5
    right = 5 * np.eye(5, dtype=np.float32)[truth]
    noise = rng.normal(size=(200, 5)).astype(np.float32)
    assert chosen(right, right, truth) == (0.5, 1.0)
    assert chosen(noise, 20 * noise[::-1], truth)[0] in {i / 20 for i in range(21)}
    alpha, _ = chosen(right, 20 * noise, truth)
    assert alpha > 0.5
    alpha, _ = chosen(20 * noise, right, truth)
    assert alpha < 0.5


def test_what_ships_holds_the_choice_and_is_built_again() -> None:
    torch.manual_seed(0)
    net = CifarResNet(5, (1, 1, 1), (4, 4, 6)).eval()
    rng = np.random.default_rng(0)
    val = Split(rng.integers(0, 256, (40, 16, 16, 3), np.uint8), rng.integers(0, 5, 40))
    method, norm = DHO(), ((0.5,) * 3, (0.25,) * 3)
    method.prepare(replace(setup(Side({}, 6, net.fc), None), student_network=Network(net, *norm, (3, 16, 16)), val=val))
    shipped = method.export(net)
    alpha, beta = method.record["alpha"], method.beta
    images = torch.randn(3, 3, 16, 16)
    z = net.forward_features(images).mean((2, 3))
    expected = alpha * net.fc(z).softmax(1) + (1 - alpha) * (method.head(z) / beta).softmax(1)
    assert torch.allclose(shipped(images).exp(), expected, atol=1e-5)
    mine = top1(predict_torch(shipped, val.images, *norm), val.labels)
    assert mine >= top1(predict_torch(net, val.images, *norm), val.labels)  # alpha = 1 is on the grid
    again = DualHead(CifarResNet(5, (1, 1, 1), (4, 4, 6)), **method.record).eval()
    again.load_state_dict(shipped.state_dict())
    assert torch.equal(again(images), shipped(images)) and isinstance(net.fc, nn.Linear) and net.fc.out_features == 5
    assert method.report(Path()) == [f"dho: alpha {alpha:g} and beta {beta:g} were chosen on validation images"]


def test_a_student_with_two_heads_is_refused() -> None:
    network, method = side(DISTILLED_VIT), DHO()
    method.prepare(setup(network, None))
    with pytest.raises(ConfigError, match="dho: the student's logits are made of more than one classifier"):
        method.loss(outputs(network, 0), Outputs(torch.zeros(8, 5)), batch(), 0)


@pytest.fixture(scope="module")
def data() -> Dataset:
    whole = load_dataset("digits")
    return replace(whole, train=whole.train[slice(640)], val=whole.val[slice(40)], test=whole.test[slice(100)])


@pytest.fixture(scope="module")
def spec(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    from safetensors.torch import save_file

    spec = ModelSpec("edgekd", "resnet8", 10, data.input_shape, mean=data.mean, std=data.std)
    file = tmp_path_factory.mktemp("teacher") / "t.safetensors"
    save_file(build_random(spec, 1).state_dict(), file)
    return replace(spec, weights=str(file))


@pytest.mark.parametrize("targets", ["replay", "live"])
def test_a_run_with_few_labels_ships_one_graph(targets: str, data: Dataset, spec: ModelSpec, tmp_path: Path) -> None:
    config = DistillConfig(epochs=2, batch_size=64, views=2, method="dho", labels=4, targets=targets)
    student = replace(spec, weights=None)
    (tmp_path / "out").mkdir()
    checkpoint = distill(
        tmp_path / "out", teacher=spec, student=student, data=data, config=config, seed=0, progress=NullProgress()
    )
    record = json.loads((tmp_path / "out" / "distill.json").read_text())
    assert (record["labelled"], record["unlabelled"]) == (40, 600) and record["notes"][0].startswith("dho: alpha")
    model = load_checkpoint(checkpoint)
    assert isinstance(model, DualHead)
    export_fp32(model, tmp_path / "s.onnx", data.input_shape, 17)
    graph = OnnxNetwork(tmp_path / "s.onnx", data.input_shape)
    found, expected = (predict_torch(net, data.test.images, data.mean, data.std) for net in (graph, model))
    assert found.shape == (100, 10) and np.abs(found - expected).max() < 1e-3
    val = top1(predict_torch(model, data.val.images, data.mean, data.std), data.val.labels)
    assert checkpoint.metrics["val_top1"] == pytest.approx(val)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "distill.unlabelled: dho needs a stream of unlabelled images"),
        ({"labels": 4, "mixup": 1.0}, "distill.mixup: dho has labelled and unlabelled images in a batch"),
        ({"labels": 4, "crops": 2}, "distill.crops: dho has labelled"),
        ({"labels": 4, "batch_size": 33}, "distill.batch_size: 33 cannot be halved"),
        ({"labels": 4, "ema": 0.9}, "distill.ema: dho ships more than the student"),
        ({"labels": 4, "ensemble": "confidence"}, "distill.ensemble: confidence goes by labels"),
    ],
)
def test_what_it_cannot_do_is_refused(
    changes: dict, message: str, data: Dataset, spec: ModelSpec, tmp_path: Path
) -> None:
    config = DistillConfig(**{"method": "dho", "batch_size": 64, **changes})
    with pytest.raises(ConfigError, match=message):
        distill(
            tmp_path,
            teacher=spec,
            student=replace(spec, weights=None),
            data=data,
            config=config,
            seed=0,
            progress=NullProgress(),
        )


def test_pairs_that_go_by_labels_are_refused() -> None:
    for other in ("crd", "lelp", "kd"):
        with pytest.raises(ConfigError, match="dho"):
            make_method(method_choices(["dho", other]), 0.0, 0)
    assert make_method(method_choices(["dho", "rkd"]), 0.0, 0)[1].ships_extra
