"""Train a network on the spot: `train_teacher` from labels alone, `distill` from a teacher's targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.catalog import METHODS, find
from edgekd.config import DistillConfig, TeacherConfig
from edgekd.data import Dataset
from edgekd.distill.methods._base import Method
from edgekd.distill.methods.ce import CrossEntropy
from edgekd.distill.targets import LiveTargets, TeacherTargets, replay
from edgekd.distill.trainer import Trainer, augmentation, training_device
from edgekd.models import build_model, build_random
from edgekd.progress import Progress
from edgekd.stage import write_atomic


def distill(
    out: Path,
    *,
    teacher: ModelSpec,
    student: ModelSpec,
    data: Dataset,
    config: DistillConfig,
    seed: int,
    progress: Progress,
) -> Checkpoint:
    """Train `student` to the teacher's targets; `out` receives a checkpoint and history.json. Resumes."""
    row = find(METHODS, "distill.method", config.method)
    options = {"label_smoothing": config.label_smoothing}
    if config.method == "kd":
        options |= {"temperature": config.temperature, "alpha": config.alpha, "zscore": config.zscore}
    method: Method = row.load()(**options)
    augment, device = augmentation(config, data, seed), training_device()
    targets: TeacherTargets | None = None
    views: int | None = None
    if config.method != "ce":
        net = build_model(teacher).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        live = LiveTargets(net, teacher.mean, teacher.std)
        if config.targets == "replay" and row.replayable:
            views = config.views
            targets = replay(out / "replay", live, data, augment, views, device, progress)
        else:
            targets = live
    student = _normalised(student, data)
    model = build_random(student, seed)
    trainer = Trainer(out, model, student, method, targets, data, augment, config, seed, views)
    metrics = trainer.fit(progress, f"distill ({config.method})")
    return _finish(out, method.export(trainer.model), student, metrics)


def train_teacher(
    out: Path, *, spec: ModelSpec, data: Dataset, config: TeacherConfig, seed: int, progress: Progress
) -> Checkpoint:
    """Train a reference net from the labels, for runs that name no teacher."""
    method = CrossEntropy(config.train.label_smoothing)
    augment = augmentation(config.train, data, seed)
    spec = _normalised(spec, data)
    trainer = Trainer(out, build_random(spec, seed), spec, method, None, data, augment, config.train, seed)
    metrics = trainer.fit(progress, f"teacher ({spec.name})")
    return _finish(out, trainer.model, spec, metrics)


def _normalised(spec: ModelSpec, data: Dataset) -> ModelSpec:
    """The spec with an input normalisation: its own, else the data's."""
    return spec if spec.mean else replace(spec, mean=data.mean, std=data.std)


def _finish(out: Path, model: nn.Module, spec: ModelSpec, metrics: dict[str, float]) -> Checkpoint:
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_atomic(out / "model.safetensors", save(state))
    checkpoint = Checkpoint(str(out), spec, metrics)
    checkpoint.save()
    (out / "state.pt").unlink(missing_ok=True)
    return checkpoint
