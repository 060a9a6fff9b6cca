"""Blockwise: segments of a network, blocks inside the teacher by hand, and a distillation that starts from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making_networks import CLASSES, SHAPE, digits, random_teacher, resnet, vit
from torch import nn
from torch.nn import functional as F

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.config import BlockwiseConfig, DistillConfig
from edgekd.data import Dataset
from edgekd.distill import distill
from edgekd.distill.blockwise import Blockwise, start_of
from edgekd.distill.methods._base import Batch, Network, Outputs, Setup
from edgekd.distill.methods._segment import Segment
from edgekd.errors import ConfigError
from edgekd.models.taps import Tapped
from edgekd.progress import NullProgress, Progress

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
BATCH = Batch(PIXELS, torch.arange(8) % CLASSES, np.arange(8), 0)
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255


def network(model: nn.Module) -> Network:
    return Network(model, (0.5,) * 3, (0.25,) * 3, SHAPE)


def prepared(student: nn.Module, teacher: nn.Module, **options: float) -> tuple[Blockwise, Outputs]:
    """With the teacher's outputs of the batch."""
    teacher.requires_grad_(False)
    watched, other = (Tapped(net, SHAPE, features=True) for net in (student, teacher))
    method = Blockwise(BlockwiseConfig(**options))
    networks = {"student_network": network(student), "teacher_network": network(teacher)}
    method.prepare(Setup(watched.side, other.side, CLASSES, BATCH.labels, 0, 10, **networks))
    with torch.no_grad():
        return method, other(network(teacher).normalised(IMAGES))


@pytest.mark.parametrize("make", [lambda: resnet(8, 16, 24), vit])
def test_segments_put_together_are_the_network(make: Any) -> None:
    net = make()
    tapped = Tapped(net, SHAPE, features=True)
    images = torch.randn(4, *SHAPE)
    taps = list(tapped.side.shapes)
    x = images
    for start, end in zip([None, *taps], [*taps, None], strict=True):
        x = Segment(network(net), start, end)(x)
    assert torch.allclose(x, net(images), atol=1e-5)


@pytest.mark.parametrize("make", [lambda: resnet(8, 16, 24), vit])
def test_every_parameter_is_of_one_block(make: Any) -> None:
    net = make()
    taps = list(Tapped(net, SHAPE, features=True).side.shapes)
    parts = [
        Segment(network(net), start, end).parameters() for start, end in zip([None, *taps], [*taps, None], strict=True)
    ]
    found = [id(parameter) for part in parts for parameter in part]
    assert all(parts) and sorted(found) == sorted(id(parameter) for parameter in net.parameters())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_losses_by_hand() -> None:
    student, teacher = resnet(8, 8, 16), resnet(8, 16, 24)
    method, theirs = prepared(student, teacher, alpha=0.3, temperature=2.0)
    terms = method.loss(Outputs(torch.zeros(8, 1)), theirs, BATCH, 0)
    assert list(terms) == ["block0", "block1", "block2", "block3"]
    second = method.blocks[1]
    torch.manual_seed(0)
    again, _ = prepared(resnet(8, 8, 16), teacher, alpha=0.3, temperature=2.0)
    made = again.blocks[1].enter(theirs.features["layer1"])
    own = again.blocks[1]._run[0].model.train().layer2(made)
    x = again.blocks[1].leave(own)
    logits = teacher.fc(teacher.layer3(x).mean((2, 3)))
    expected = 0.3 * 4 * F.kl_div(
        F.log_softmax(logits / 2, 1), F.softmax(theirs.logits / 2, 1), reduction="batchmean"
    ) + 0.7 * F.cross_entropy(logits, BATCH.labels)
    assert terms["block1"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert second.source == "layer1"


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (lambda: resnet(8, 8, 16), lambda: resnet(8, 16, 24)),
        (lambda: resnet(8, 8, 16), vit),
        (vit, lambda: resnet(8, 16, 24)),
    ],
)
def test_a_block_learns_alone_and_its_statistics_are_of_the_batch(student: Any, teacher: Any) -> None:
    ours, frozen = student(), teacher()
    method, theirs = prepared(ours, frozen)
    before = {key: value.clone() for key, value in [*frozen.state_dict().items()]}
    ours.train()
    terms = method.loss(Outputs(torch.zeros(8, 1)), theirs, BATCH, 0)
    seen: set[int] = set()
    for term in terms.values():
        ours.zero_grad(set_to_none=True)
        term.backward(retain_graph=True)
        own = {id(p) for p in ours.parameters() if p.grad is not None}
        assert own and not own & seen
        seen |= own
    assert seen == {id(p) for p in ours.parameters()} and all(p.grad is None for p in frozen.parameters())
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())
    counts = {int(m.num_batches_tracked) for m in ours.modules() if isinstance(m, nn.BatchNorm2d)}
    assert counts <= {1}, "a pass of another block entered the statistics"


def test_without_labels_the_teacher_alone_is_learned() -> None:
    method, theirs = prepared(resnet(8, 8, 16), resnet(8, 16, 24), alpha=0.5)
    batch = replace(BATCH, labels=torch.full((8,), -1))
    terms = method.loss(Outputs(torch.zeros(8, 1)), theirs, batch, 0)
    assert all(torch.isfinite(term) for term in terms.values())


@pytest.fixture(scope="module")
def data() -> Dataset:
    return digits(320)


@pytest.fixture(scope="module")
def teacher(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return random_teacher(data, tmp_path_factory.mktemp("teacher"))


class Stop(NullProgress):
    """Ends the run at the start of task `name`, as a kill would."""

    def __init__(self, name: str) -> None:
        self.name = name

    def task(self, name: str, total: int, done: int = 0) -> Any:
        if name.startswith(self.name):
            raise KeyboardInterrupt
        return super().task(name, total, done)


def run(out: Path, data: Dataset, teacher: ModelSpec, progress: Progress, **changes: Any) -> Checkpoint:
    out.mkdir(exist_ok=True)
    given = {"epochs": 1, "batch_size": 32, "views": 1, "blockwise": {"epochs": 2}, "ema": 0.5, **changes}
    student = ModelSpec("edgekd", "resnet8", 10, data.input_shape, mean=data.mean, std=data.std)
    return distill(
        out, teacher=teacher, student=student, data=data, config=DistillConfig(**given), seed=0, progress=progress
    )


def test_a_distillation_starts_from_the_blocks_and_resumes_exactly(
    data: Dataset, teacher: ModelSpec, tmp_path: Path
) -> None:
    first = run(tmp_path / "a", data, teacher, NullProgress()).weights.read_bytes()
    record = json.loads((tmp_path / "a" / "distill.json").read_text())
    assert [row["epoch"] for row in record["blockwise"]] == [1, 2]
    assert {"loss_block0", "loss_block3"} <= set(record["blockwise"][0])
    assert record["blockwise"][1]["loss"] < record["blockwise"][0]["loss"]
    assert not (tmp_path / "a" / "blockwise").exists()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", data, teacher, Stop("distill"))
    assert (tmp_path / "b" / "blockwise" / "model.safetensors").is_file()
    assert run(tmp_path / "b", data, teacher, Stop("blockwise")).weights.read_bytes() == first, "blocks trained again"
    assert run(tmp_path / "c", data, teacher, NullProgress(), blockwise={}).weights.read_bytes() != first


def test_the_teacher_has_to_be_a_network_of_the_classes(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    inputs: dict[str, Any] = {"student": teacher, "data": data, "seed": 0, "progress": NullProgress()}
    config = DistillConfig(blockwise={"epochs": 1})
    for other, what in (
        (replace(teacher, source="onnx"), "an ONNX file"),
        (replace(teacher, num_classes=9), "9 classes"),
    ):
        with pytest.raises(ConfigError, match=f"distill.blockwise: .*{what}"):
            start_of(tmp_path, teacher=other, config=config, **inputs)


def test_networks_that_cannot_be_cut_are_refused(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    taps = {"student": ("layer2.0.conv1",), "teacher": ("layer2",)}
    with pytest.raises(ConfigError, match="distill.taps.student: what follows the student's layer2.0.conv1"):
        run(tmp_path, data, teacher, NullProgress(), taps=taps)
