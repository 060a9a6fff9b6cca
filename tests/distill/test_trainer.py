"""The loop: it learns, replay equals live, and a run stopped anywhere ends with an unbroken run's bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.config import DistillConfig, TeacherConfig, TrainConfig
from edgekd.data import Dataset, load_dataset
from edgekd.distill import distill, train_teacher
from edgekd.distill.methods._base import Batch
from edgekd.distill.schedule import augmentation, autocast_dtype, learning_rate
from edgekd.distill.targets import Layout, LiveTargets, replay
from edgekd.errors import RunError
from edgekd.models import build_model, build_random, load_checkpoint
from edgekd.models.taps import Tapped
from edgekd.progress import NullProgress, Task
from edgekd.tasks.classification import predict_torch, top1


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def teacher(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    out = tmp_path_factory.mktemp("teacher")
    spec = ModelSpec("edgekd", "resnet8", 10, data.input_shape, mean=data.mean, std=data.std)
    config = TeacherConfig(train=TrainConfig(epochs=4, batch_size=64))
    checkpoint = train_teacher(out, spec=spec, data=data, config=config, seed=0, progress=NullProgress())
    assert checkpoint.metrics["val_top1"] > 0.9
    return replace(spec, weights=str(checkpoint.weights))


def student(data: Dataset) -> ModelSpec:
    kwargs = {"depths": (1, 1, 1), "widths": (8, 8, 16)}
    return ModelSpec("edgekd", "cifar-resnet", 10, data.input_shape, kwargs, mean=data.mean, std=data.std)


class StopAfter(NullProgress):
    """A progress that raises at the n-th advance of the task called `name`: a run killed there."""

    def __init__(self, name: str, n: int) -> None:
        self.name, self.left = name, n

    @contextmanager
    def task(self, name: str, total: float, done: float = 0) -> Iterator[Task]:
        yield self if self.name in name else NullProgress().task(name, total).__enter__()

    def advance(self, amount: float = 1) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


CONFIG = DistillConfig(epochs=2, batch_size=64, views=2, progressive=0.5, ema=0.9, checkpoint_seconds=1e-9)


def run(out: Path, data: Dataset, teacher: ModelSpec, progress: NullProgress, **changes: object) -> Checkpoint:
    out.mkdir(exist_ok=True)
    config = CONFIG.model_copy(update=changes)
    return distill(out, teacher=teacher, student=student(data), data=data, config=config, seed=3, progress=progress)


def test_a_stopped_run_ends_with_the_same_bytes(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    unbroken = run(tmp_path / "a", data, teacher, NullProgress()).weights.read_bytes()
    spe = len(data.train) // 64
    for stop in [("targets", 3), ("distill", spe), ("distill", spe + 3)]:
        out = tmp_path / f"{stop[0]}{stop[1]}"
        with pytest.raises(KeyboardInterrupt):
            run(out, data, teacher, StopAfter(*stop))
        assert run(out, data, teacher, NullProgress()).weights.read_bytes() == unbroken, stop
        assert not (out / "state.pt").exists()


def test_the_checkpoint_scores_as_training_did(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    """Its spec's normalisation, here not the data's, is the one it was trained with."""
    odd = replace(student(data), mean=(0.9,), std=(0.05,))
    out = tmp_path / "odd"
    out.mkdir()
    config = CONFIG.model_copy(update={"ema": None, "epochs": 3})
    checkpoint = distill(out, teacher=teacher, student=odd, data=data, config=config, seed=3, progress=NullProgress())
    assert checkpoint.spec.mean == (0.9,)
    logits = predict_torch(load_checkpoint(checkpoint), data.val.images, checkpoint.spec.mean, checkpoint.spec.std)
    last = json.loads((out / "history.json").read_text())[-1]["val_top1"]
    assert top1(logits, data.val.labels) == last > 0.3
    wrong = predict_torch(load_checkpoint(checkpoint), data.val.images, data.mean, data.std)
    assert top1(wrong, data.val.labels) < last


def test_another_seed_is_another_student(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    a = run(tmp_path / "a", data, teacher, NullProgress(), epochs=1)
    (tmp_path / "b").mkdir()
    b = distill(
        tmp_path / "b",
        teacher=teacher,
        student=student(data),
        data=data,
        config=CONFIG.model_copy(update={"epochs": 1}),
        seed=4,
        progress=NullProgress(),
    )
    assert a.weights.read_bytes() != b.weights.read_bytes()


def test_live_and_replay_train_the_same_student(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    """Epoch e sees view e in both modes, so only the fp16 rounding of the targets lies between them."""
    outs = {mode: tmp_path / mode for mode in ("live", "replay")}
    live, stored = (
        load_checkpoint(run(out, data, teacher, NullProgress(), targets=mode, lr=0.003, epochs=2))
        for mode, out in outs.items()
    )
    image = torch.randn(16, *data.input_shape)
    assert torch.allclose(live(image), stored(image), atol=0.02)
    losses = [[row["loss"] for row in json.loads((out / "history.json").read_text())] for out in outs.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0] != losses[1]


def test_replay_rows_are_the_teachers_logits(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    live = LiveTargets(Tapped(build_model(teacher), teacher.input_shape), teacher.mean, teacher.std)
    augment = augmentation(CONFIG, data, 0)
    stored = replay(tmp_path / "x", live, Layout(10), data, augment, 2, torch.device("cpu"), NullProgress())
    samples = np.array([7, 901, 3])
    pixels = augment(data.train.images[samples], samples, 1)
    batch = Batch(pixels, torch.zeros(3, dtype=torch.long), samples, 1)
    assert torch.allclose(stored(batch).logits, live(batch).logits, rtol=2e-3, atol=2e-2)


def test_progressive_resizing_starts_small_and_ends_at_full_size(
    data: Dataset, teacher: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watched(spec: ModelSpec, seed: int) -> nn.Module:
        net = build_random(spec, seed)
        net.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[-1]) if module.training else None)
        return net

    sizes: list[int] = []
    monkeypatch.setattr("edgekd.distill.build_random", watched)
    run(tmp_path / "p", data, teacher, NullProgress(), progressive=0.5)
    half = len(data.train) // 64
    assert sizes == [data.input_shape[1] * 3 // 4] * half + [data.input_shape[1]] * half


def test_schedule() -> None:
    config = TrainConfig(epochs=10, lr=0.2, warmup_epochs=2)
    rates = [learning_rate(config, step, 5) for step in range(50)]
    assert rates[0] == pytest.approx(0.02) and max(rates) == rates[9] == rates[10] == pytest.approx(0.2)
    assert rates[30] == pytest.approx(0.1) and 0 < rates[49] < 1e-3


def test_divergence_is_an_error(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="loss is .*\n.*lr"):
        run(tmp_path / "d", data, teacher, NullProgress(), lr=1e20, warmup_epochs=0, ema=None)


def test_bf16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, dtype in [({"avx2"}, None), ({"amx_bf16"}, torch.bfloat16)]:
        monkeypatch.setattr("edgekd.distill.schedule.isa_features", lambda f=features: frozenset(f))
        assert autocast_dtype(TrainConfig(), torch.device("cpu")) is dtype
    assert autocast_dtype(TrainConfig(precision="fp32"), torch.device("cpu")) is None
