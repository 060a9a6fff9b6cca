"""What can be said of a method: its formula and options, and what a step with it costs on this machine."""

from __future__ import annotations

import inspect
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd import processes
from edgekd.artifacts import ModelSpec
from edgekd.catalog import METHODS
from edgekd.config import DistillConfig, MethodChoice
from edgekd.data import Dataset, Split
from edgekd.distill import check_inputs
from edgekd.distill.methods._base import Batch
from edgekd.distill.methods._combined import make_method, options_of
from edgekd.distill.methods._custom import find_method
from edgekd.distill.schedule import augmentation
from edgekd.distill.streams import without_labels
from edgekd.distill.targets import Layout, TeacherTargets, replay
from edgekd.distill.teachers import live_targets
from edgekd.distill.trainer import Trainer
from edgekd.errors import ConfigError
from edgekd.models import build_random
from edgekd.models.taps import Side, Tapped
from edgekd.progress import NullProgress, Progress

PAIR = ("resnet20", "resnet8")  # teacher and student of the measurement
SHAPE, CLASSES, BATCH = (3, 32, 32), 100, 64
WARM, TIMED = 2, 9  # steps; the fastest of the timed ones counts, what slows others is not the method


def describe_method(name: str) -> dict[str, Any]:
    """A method's row, its options with their defaults, and `formula`: the docstring of its module. Raises ConfigError.

    `name` may be a user's own, as in `distill.method`.
    """
    kind, row = find_method(name)
    module = inspect.getmodule(kind)
    options = {key: parameter.default for key, parameter in options_of(kind).items()}
    record = {key: value for key, value in asdict(row).items() if key != "target"}
    return {**record, "replay": row.replayable, "options": options, "formula": inspect.getdoc(module) or ""}


def measure_methods(progress: Progress) -> list[dict[str, Any]]:
    """One row a method: milliseconds of a training step and how many of `kd`'s that is.

    A small ResNet pair on random images; a method gets stored targets where they are enough for it, else the teacher
    runs in the step. What the pair is refused for stands in `note`.
    """
    data = _random_data()
    taken: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    with progress.task("methods", len(METHODS) + 1) as task:
        for name in (*METHODS, "kd"):  # kd again at the end: what comes first pays for waking the machine up
            with tempfile.TemporaryDirectory(prefix="edgekd-") as out:
                try:
                    taken[name] = _step_ms(name, data, Path(out))
                except ConfigError as error:
                    taken[name], notes[name] = None, error.what
            task.advance()
    kd = taken["kd"]
    assert kd is not None
    return [
        {
            "name": name,
            "targets": "-" if not METHODS[name].teacher else "replay" if METHODS[name].replayable else "live",
            "step_ms": milliseconds,
            "of_kd": None if milliseconds is None else milliseconds / kd,
            "note": notes.get(name, ""),
        }
        for name, milliseconds in taken.items()
    ]


def _random_data() -> Dataset:
    n = BATCH * (WARM + TIMED)
    images = np.random.default_rng(0).integers(0, 256, (n, *SHAPE[1:], SHAPE[0]), np.uint8)
    split = Split(images, np.arange(n) % CLASSES)
    names = tuple(map(str, range(CLASSES)))
    return Dataset("random", names, split, split, split, (0.5,) * 3, (0.25,) * 3, True, "-")


def _step_ms(name: str, data: Dataset, out: Path) -> float:
    method, row = make_method([MethodChoice(name, {})], 0.0, 0)
    config = DistillConfig(batch_size=BATCH, epochs=1, views=1, labels=0.5 if "unlabelled" in row.needs else None)
    if "pool" in row.needs:
        data, table = replace(data, train=without_labels(data.train.images)), None
    else:
        data, table = check_inputs(data, row, config, 0)
    specs = [ModelSpec("edgekd", net, CLASSES, SHAPE, mean=data.mean, std=data.std) for net in PAIR]
    student = Tapped(build_random(specs[1], 0), SHAPE, **row.asks("student"))
    augment, device = augmentation(config, data, 0), processes.device()
    targets: TeacherTargets | None = None
    side: Side | None = None
    if row.teacher:
        targets, side = live_targets(specs[:1], row, config, device, None)
        if row.replayable:
            layout = Layout(CLASSES, embedding=side.embedding if side is not None else 0)
            targets = replay(out / "replay", targets, layout, data, augment, 1, device, NullProgress())
    trainer = Trainer(out, student, specs[1], method, targets, data, augment, config, 0, 1, side, table)
    plan = trainer.streams.plan(config, 0, 0, 1)
    seconds = []
    for (samples, view), pixels in zip(plan, trainer.loader(plan), strict=True):
        started = time.perf_counter()
        trainer.train_step(Batch(pixels, trainer.labels[samples], samples, view))
        seconds.append(time.perf_counter() - started)
        trainer.step += 1
    return min(seconds[WARM:]) * 1e3
