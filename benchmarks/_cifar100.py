"""CIFAR-100 and its trained ResNet-56 under the directory DATA that the benchmarks are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from edgekd.artifacts import ModelSpec
from edgekd.config import DistillConfig
from edgekd.data.dataset import Dataset, channel_statistics
from edgekd.data.readers import open_reader
from edgekd.distill import distill
from edgekd.models import load_checkpoint
from edgekd.progress import NullProgress
from edgekd.tasks.classification import predict_torch, top1

SHAPE = (3, 32, 32)
CIFAR100 = {"mean": (0.5070, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2761)}
IMAGES, TEACHER = "cifar100_train6bit_testexact.zip", "teachers/cifar100_resnet56-f2eff4c8.pt"
VAL = 500  # what the trainer watches; chooses nothing here, and is not trained on by any method


def teacher_of(data: Path) -> ModelSpec:
    return ModelSpec("edgekd", "resnet56", 100, SHAPE, {"shortcut": "B"}, weights=str(data / TEACHER), **CIFAR100)


def short(data: Path, count: int, watched: int = VAL, images: str = IMAGES) -> Dataset:
    """The first `count` training images as the archive has them, balanced; `watched` from behind them to watch."""
    path = data / images
    raw = open_reader(str(path)).read(None)
    assert raw.test is not None
    train, val = raw.train[slice(count)], raw.train[slice(count, count + watched)]
    mean, std = channel_statistics(train.images)
    return Dataset(raw.name, raw.classes, train, val, raw.test, mean, std, True, f"{count} of {path.name}")


def trained_top1(
    teacher: ModelSpec, student: ModelSpec, data: Dataset, config: DistillConfig, seed: int, work: Path
) -> tuple[float, dict[str, Any]]:
    """Test accuracy after the last epoch, and what `trained` says of the run."""
    model, record = trained(teacher, student, data, config, seed, work)
    return top1(predict_torch(model, data.test.images, student.mean, student.std), data.test.labels), record


def trained(
    teacher: ModelSpec,
    student: ModelSpec,
    data: Dataset,
    config: DistillConfig,
    seed: int,
    work: Path,
) -> tuple[nn.Module, dict[str, Any]]:
    """The student, and what the stage says of itself (`distill.json`) with its seconds.

    `work` keeps the checkpoint; a run that was cut goes on from what it holds.
    """
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = distill(
        work,
        teacher=teacher,
        student=student,
        data=data,
        config=config,
        seed=seed,
        progress=NullProgress(),
    )
    model = load_checkpoint(checkpoint)
    epochs = json.loads((work / "history.json").read_text())
    record = {
        **json.loads((work / "distill.json").read_text()),
        "seconds": sum(epoch["seconds"] for epoch in epochs),  # of all parts of a run that was cut
    }
    return model, record
