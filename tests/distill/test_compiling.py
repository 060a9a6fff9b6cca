"""torch.compile: kept where it is faster, given up with a reason where it is not, and never a change of the network.

The compiler's own front end runs; its code generator, which takes a minute, is left out.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.artifacts import ModelSpec
from edgekd.config import TrainConfig
from edgekd.data import Dataset, load_dataset
from edgekd.distill import compiling
from edgekd.distill.compiling import compile_student
from edgekd.distill.methods.ce import CrossEntropy
from edgekd.distill.schedule import augmentation
from edgekd.distill.trainer import Trainer
from edgekd.errors import RunError
from edgekd.models import build_random
from edgekd.models.taps import Tapped
from edgekd.progress import NullProgress


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    monkeypatch.setattr(compiling, "WORTH_TRYING", 0.0)
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits")


class Breaking(nn.Module):
    """A branch on a value: no one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        out: Tensor = self.fc(x if x.sum() > 0 else -x)
        return out


def steps(student: Tapped) -> Callable[[], Tensor]:
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return lambda: student(images).logits.square().mean()


def resnet(**asked: bool) -> Tapped:
    spec = ModelSpec("edgekd", "resnet8", 10, (1, 8, 8))
    return Tapped(build_random(spec, 0), spec.input_shape, **asked)


def clocked(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """The medians that are measured, one after the other; the steps are run all the same."""
    own, given = compiling._seconds, iter(seconds)
    monkeypatch.setattr(compiling, "_seconds", lambda forward, n: own(forward, 1) * 0 + next(given))


@pytest.mark.parametrize(("after", "kept"), [(0.9, True), (1.1, False)])
def test_auto_keeps_what_is_faster(after: float, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    student = resnet(features=True, embeddings=True)
    before = copy.deepcopy(student.model.state_dict())
    clocked(monkeypatch, 1.0, 30.0, after)
    done = compile_student(student, "auto", steps(student), 100)
    assert done.startswith("compiled: a step takes 1000.0 ms" if kept else "not compiled: a step") and "ms" in done
    assert (student.run is not student.model) == kept
    for key, value in student.model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(parameter.grad is None for parameter in student.model.parameters()) and not student.model.training
    outputs = student(torch.randn(2, 1, 8, 8))
    assert outputs.features is not None and list(outputs.features) == ["layer1", "layer2", "layer3"]
    assert outputs.embeddings is not None and outputs.embeddings.shape == (2, 64)


def test_a_graph_break_is_a_reason_not_to() -> None:
    student = Tapped(Breaking(), (1, 8, 8))
    done = compile_student(student, "auto", steps(student), 100)
    assert done.startswith("not compiled: ") and len(done) > 20 and student.run is student.model


def test_a_short_training_is_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "WORTH_TRYING", 600.0)
    student = resnet()
    assert "too few" in compile_student(student, "auto", steps(student), 3) and student.run is student.model


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, where a graph is cut
def test_on_compiles_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    student = Tapped(Breaking(), (1, 8, 8))
    assert compile_student(student, "on", steps(student), 1) == "compiled"  # in several graphs

    def absent(*_: object) -> None:
        raise OSError("g++ is missing")

    monkeypatch.setattr(compiling, "BACKEND", absent)
    student = resnet()
    with pytest.raises(RunError, match="distill.compile: CifarResNet cannot be compiled: (?s:.*)missing(?s:.*)off"):
        compile_student(student, "on", steps(student), 1)
    assert student.run is student.model


def test_a_resumed_run_keeps_the_choice(data: Dataset, tmp_path: Path) -> None:
    spec = ModelSpec("edgekd", "resnet8", 10, data.input_shape, mean=data.mean, std=data.std)
    weights = []
    for name, mode in (("off", "off"), ("auto", "auto")):
        out = tmp_path / name
        out.mkdir()
        config = TrainConfig(epochs=1, batch_size=256, compile=mode, checkpoint_seconds=1e-9)

        def trainer(config: TrainConfig = config, out: Path = out) -> Trainer:
            student = Tapped(build_random(spec, 0), spec.input_shape)
            augment = augmentation(config, data, 0)
            return Trainer(out, student, spec, CrossEntropy(), None, data, augment, config, 0)

        first = trainer()
        with pytest.MonkeyPatch.context() as patch:
            clocked(patch, 1.0, 1.0, 0.5)
            first._compile(NullProgress())
        first.step = 1  # as if it had been killed after a step
        first._save()
        second = trainer()
        second.fit(NullProgress(), "again")
        assert (second.student.run is not second.model) == (mode == "auto")
        assert (second.compiled or "").startswith("compiled" if mode == "auto" else "")
        weights.append(second.model.state_dict())
        assert len(json.loads((out / "history.json").read_text())) == 1
    for key, value in weights[0].items():
        assert torch.allclose(value.float(), weights[1][key].float(), atol=1e-6), key
