"""Train a network on the spot: `train_teacher` from labels alone, `distill` from a teacher's targets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd import processes
from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.catalog import MethodRow
from edgekd.config import DistillConfig, TeacherConfig, method_choices
from edgekd.data import Dataset
from edgekd.data.table import Columns, read_table
from edgekd.distill.blockwise import start_of
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.ce import CrossEntropy
from edgekd.distill.parallel import check_batch
from edgekd.distill.schedule import augmentation
from edgekd.distill.streams import with_streams
from edgekd.distill.targets import DENSE_CLASSES, TOP, Layout, TeacherTargets, replay, tables_name
from edgekd.distill.teachers import Export, live_targets
from edgekd.distill.trainer import Trainer, smaller
from edgekd.errors import ConfigError
from edgekd.models import build_random, write_state
from edgekd.models.taps import Side, Tapped
from edgekd.progress import Progress
from edgekd.stage import write_json


def distill(
    out: Path,
    *,
    teacher: ModelSpec,
    student: ModelSpec,
    data: Dataset,
    config: DistillConfig,
    seed: int,
    progress: Progress,
    others: Sequence[ModelSpec] = (),
) -> Checkpoint:
    """Train `student` to the targets of `teacher`, with `others` to those of all of them together. Resumes.

    `out` receives a checkpoint, history.json and distill.json, which says what was listened to and where targets came
    from. Raises ConfigError or ModelError when the method does not fit the networks or the data.
    """
    method, row = make_method(method_choices(config.method), config.label_smoothing, seed)
    used = len(data.train)
    data, table = check_inputs(data, row, config, seed)
    _check(row, data, config, teacher.num_classes)
    device, augment = processes.device(), augmentation(config, data, seed)
    student = _normalised(student, data)
    model = build_random(student, seed)
    tapped = Tapped(model, student.input_shape, taps=config.taps.student, whose="student", **row.asks("student"))
    _check_small(model, student, config)
    record: dict[str, Any] = {"method": row.name, "student_taps": list(tapped.side.shapes)}
    if config.labels is not None or config.unlabelled is not None:
        record |= {"labelled": int((data.train.labels >= 0).sum()), "unlabelled": int((data.train.labels < 0).sum())}
        if "pool" in row.needs:
            progress.note(f"{row.name} trains on the {len(data.train):,} images of distill.unlabelled and no others")
        elif len(data.train) < used:
            progress.note(f"{row.name} trains on the {len(data.train):,} labelled images of {used:,}")
    targets: TeacherTargets | None = None
    views: int | None = None
    side: Side | None = None
    if row.teacher:
        why = _why_live(row, config)
        store = Path(config.store) if config.store is not None else out / "replay"
        export = None if why else Export(store, config.views * len(data.train), progress)
        targets, side = live_targets([teacher, *others], row, config, device, export)
        record |= {
            "targets": "live" if why else "replay",
            "why": why,
            "teacher_taps": list(side.shapes) if side else [],
        }
        if why is None:
            views = config.views
            embedding = side.embedding if side is not None else 0
            layout = _layout(row, teacher.num_classes, embedding, config)
            record["target_bytes"] = views * len(data.train) * layout.row_bytes
            tables = store / tables_name([teacher, *others], layout, data, augment, config)
            targets = replay(tables, targets, layout, data, augment, views, device, progress)
        elif config.targets == "replay":
            progress.note(f"the teacher runs beside the student: {why}")
    trainer = Trainer(out, tapped, student, method, targets, data, augment, config, seed, views, side, table)
    if config.blockwise.epochs:
        inputs: Any = {"teacher": teacher, "student": student, "data": data, "config": config}
        trainer.start_from(start_of(out / "blockwise", **inputs, seed=seed, progress=progress))
        record["blockwise"] = json.loads((out / "blockwise" / "history.json").read_text())
    metrics = trainer.fit(progress, f"distill ({row.name})")
    shipped = method.export(trainer.model)
    if row.ships_extra:
        kind = type(shipped)
        around = {"class": f"{kind.__module__}:{kind.__qualname__}", "kwargs": dict(method.record or {})}
        student = replace(student, around=around)
    checkpoint = _finish(out, shipped, student, metrics)
    if processes.rank() == 0:
        record |= {"notes": method.report(out), "pictures": sorted(file.name for file in out.glob("*.png"))}
        write_json(out / "distill.json", record)
        for directory in ("replay", "blockwise"):  # of no use to any other student
            shutil.rmtree(out / directory, ignore_errors=True)
    return checkpoint


def train_teacher(
    out: Path, *, spec: ModelSpec, data: Dataset, config: TeacherConfig, seed: int, progress: Progress
) -> Checkpoint:
    """Train a reference net from the labels, for runs that name no teacher."""
    method = CrossEntropy(config.train.label_smoothing)
    augment = augmentation(config.train, data, seed)
    spec = _normalised(spec, data)
    student = Tapped(build_random(spec, seed), spec.input_shape)
    trainer = Trainer(out, student, spec, method, None, data, augment, config.train, seed)
    metrics = trainer.fit(progress, f"teacher ({spec.name})")
    return _finish(out, trainer.model, spec, metrics)


def _why_live(row: MethodRow, config: DistillConfig) -> str | None:
    """Why the teacher has to run beside the student; None where its stored outputs do."""
    if config.targets == "live":
        return "distill.targets is live"
    if "network" in row.needs:
        return f"{row.name} runs the teacher itself"
    if "live" in row.needs:
        return f"{row.name} makes new images at every step, and outputs are stored of those that were seen before"
    if not row.replayable:
        return f"{row.name} needs features, and only logits and embeddings are stored"
    return "images are mixed anew at every step" if config.mixup else None


def _layout(row: MethodRow, classes: int, embedding: int, config: DistillConfig) -> Layout:
    """What replay stores. Raises ConfigError where the method needs more."""
    top = config.top_k or (TOP if classes > DENSE_CLASSES else classes)
    if top >= classes:
        return Layout(classes, embedding=embedding)
    if "all_logits" in row.needs:
        raise ConfigError(
            f"distill.targets: {row.name} needs the logits of all {classes} classes, and replay would store {top}",
            f"Set distill.targets to live, or distill.top_k to {classes}.",
        )
    if top < row.top_logits:
        raise ConfigError(
            f"distill.targets: {row.name} reads the {row.top_logits} largest logits, and replay would store {top}",
            f"Set distill.targets to live, or distill.top_k to {row.top_logits}.",
        )
    return Layout(classes, top, embedding)


def check_inputs(data: Dataset, row: MethodRow, config: DistillConfig, seed: int) -> tuple[Dataset, Columns | None]:
    """The data with the streams that `row` trains on, and its table. Raises ConfigError or DataError."""
    if config.store is not None and Path(config.store).is_file():
        raise ConfigError(f"distill.store: {config.store} is a file", "Name a directory, which may be new.")
    data = with_streams(data, row, config, seed)
    return data, _table(row, data, config)


def _table(row: MethodRow, data: Dataset, config: DistillConfig) -> Columns | None:
    """What `distill.table` holds, where the method reads it."""
    asked = "table" in row.needs
    if asked and config.table is None:
        raise ConfigError(
            f"distill.table: {row.name} needs a table with values of every training image, and there is none",
            "Name one; `edgekd aspects` makes a table of aspects.",
        )
    if config.table is not None and not asked:
        raise ConfigError(f"distill.table: {row.name} reads no table", "Set it to null, or another distill.method.")
    return None if config.table is None else read_table(Path(config.table), data.train.ids)


def _check(row: MethodRow, data: Dataset, config: DistillConfig, teacher_classes: int) -> None:
    check_batch(config, len(data.train))
    if teacher_classes != data.num_classes and not row.any_classes:
        raise ConfigError(
            f"distill.method: {row.name} compares classes, and the teacher has {teacher_classes}, the data have "
            f"{data.num_classes}",
            "Use a method of features or embeddings, such as prockd, or a teacher of these classes.",
        )
    if data.num_classes < row.min_classes:
        raise ConfigError(
            f"distill.method: {row.name} needs {row.min_classes} classes, the data have {data.num_classes}",
            "Set distill.method to kd.",
        )
    if {"features", "student_features"} & set(row.needs) and config.progressive:
        raise ConfigError(
            f"distill.progressive: {row.name} compares feature maps, which smaller images would change",
            "Set distill.progressive to 0.",
        )
    if row.ships_extra and config.ema is not None:
        raise ConfigError(
            f"distill.ema: {row.name} ships more than the student, and only that is averaged",
            "Set distill.ema to null.",
        )
    if {"unlabelled", "pool"} & set(row.needs) and config.ensemble == "confidence":
        raise ConfigError(
            f"distill.ensemble: confidence goes by labels, and {row.name} has images without one", "Set it to mean."
        )
    if "pool" in row.needs and config.mixup:
        raise ConfigError(f"distill.mixup: {row.name} chooses among whole images", "Set distill.mixup to 0.")
    if "unlabelled" in row.needs:
        if config.mixup or config.crops > 1:
            key = "mixup" if config.mixup else "crops"
            raise ConfigError(
                f"distill.{key}: {row.name} has labelled and unlabelled images in a batch", f"Unset distill.{key}."
            )
        if min(config.batch_size, len(data.train)) // config.accumulate // processes.count() % 2:
            raise ConfigError(
                f"distill.batch_size: {config.batch_size} cannot be halved into labelled and unlabelled images",
                "Make it even for every part and process.",
            )


@torch.no_grad()
def _check_small(model: nn.Module, spec: ModelSpec, config: DistillConfig) -> None:
    """Progressive resizing is for networks that take images of another size."""
    if config.progressive:
        try:
            model(smaller(torch.zeros(2, *spec.input_shape)))
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"distill.progressive: {spec.name} takes images of one size only: {error}",
                "Set distill.progressive to 0.",
            ) from None


def _normalised(spec: ModelSpec, data: Dataset) -> ModelSpec:
    """The spec with an input normalisation: its own, else the data's."""
    return spec if spec.mean else replace(spec, mean=data.mean, std=data.std)


def _finish(out: Path, model: nn.Module, spec: ModelSpec, metrics: dict[str, float]) -> Checkpoint:
    checkpoint = Checkpoint(str(out), spec, metrics)
    if processes.rank() == 0:
        write_state(model, out / "model.safetensors")
        checkpoint.save()
        (out / "state.pt").unlink(missing_ok=True)
    return checkpoint
