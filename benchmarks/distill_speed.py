"""What teacher targets cost: images a second of plain training, KD live, KD replay, a bare loop, and the usual KD loop.

    python benchmarks/distill_speed.py DATA [--images 2560] [--rounds 5]

CIFAR-100, ResNet-56 to ResNet-20, batch 128, one process; the contestants take turns and the medians count. The bare
loop has its tensors resident and does nothing but forward, loss, backward and step. The usual loop runs the teacher
beside the student and transforms one image at a time in a DataLoader, in fp32 and the default memory layout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _cifar100 import CIFAR100, short, teacher_of
from _record import record
from distill_accuracy import STUDENT
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from edgekd.artifacts import ModelSpec
from edgekd.config import DistillConfig
from edgekd.data import Dataset
from edgekd.data.augment import normalise
from edgekd.distill import distill
from edgekd.distill.methods.kd import kd_loss
from edgekd.distill.schedule import autocast_dtype
from edgekd.models import build_model, build_random
from edgekd.progress import NullProgress

BATCH = 128


def trainer_epoch(data: Dataset, teacher: ModelSpec, method: str, targets: str, store: Path) -> Callable[[], float]:
    """Seconds of one epoch as edgekd trains it; what is done once, before or after, does not count."""

    def run() -> float:
        with tempfile.TemporaryDirectory() as directory:
            settings: dict[str, Any] = {"method": method, "targets": targets, "store": str(store)}
            config = DistillConfig(epochs=1, views=1, warmup_epochs=0.5, **settings)
            distill(
                Path(directory),
                teacher=teacher,
                student=STUDENT,
                data=data,
                config=config,
                seed=0,
                progress=NullProgress(),
            )
            history: list[dict[str, float]] = json.loads((Path(directory) / "history.json").read_text())
            return history[0]["seconds"]

    return run


def bare_loop(data: Dataset) -> Callable[[], float]:
    dtype = autocast_dtype(DistillConfig(), torch.device("cpu"))

    def run() -> float:
        model = build_random(STUDENT, 0).train().to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        images = normalise(data.train.images, *CIFAR100.values()).contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(data.train.labels)
        begun = time.perf_counter()
        for i in range(0, len(images), BATCH):
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                logits = model(images[i : i + BATCH])
            loss = F.cross_entropy(logits.float(), labels[i : i + BATCH])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return time.perf_counter() - begun

    return run


class PerImage(TorchDataset[Any]):
    def __init__(self, data: Dataset) -> None:
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.data = data
        self.transform = transforms.Compose([*steps, transforms.Normalize(*CIFAR100.values())])

    def __len__(self) -> int:
        return len(self.data.train)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.data.train.images[i])), int(self.data.train.labels[i])


def usual_loop(data: Dataset, teacher: ModelSpec) -> Callable[[], float]:
    live = build_model(teacher)

    def run() -> float:
        model: nn.Module = build_random(STUDENT, 0).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        begun = time.perf_counter()
        for images, labels in DataLoader(PerImage(data), BATCH, shuffle=True, num_workers=2):
            with torch.no_grad():
                targets = live(images)
            logits = model(images)
            loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * kd_loss(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - begun

    return run


def replay_pass(data: Dataset, teacher: ModelSpec) -> Callable[[], float]:
    """Seconds of the pass that stores one view of every image."""

    def run() -> float:
        with tempfile.TemporaryDirectory() as directory:
            store, times = Path(directory) / "store", []
            for name in ("cold", "warm"):
                out = Path(directory) / name
                out.mkdir()
                begun = time.perf_counter()
                config = DistillConfig(epochs=1, views=1, warmup_epochs=0.5, store=str(store))
                arguments: dict[str, Any] = {"teacher": teacher, "student": STUDENT, "data": data, "config": config}
                distill(out, **arguments, seed=0, progress=NullProgress())
                times.append(time.perf_counter() - begun)
            return times[0] - times[1]

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    data = short(options.data, options.images)
    teacher = teacher_of(options.data)
    with tempfile.TemporaryDirectory() as directory:
        store = Path(directory) / "store"
        contestants = {
            "bare loop": bare_loop(data),
            "plain": trainer_epoch(data, teacher, "ce", "replay", store),
            "kd replay": trainer_epoch(data, teacher, "kd", "replay", store),
            "kd live": trainer_epoch(data, teacher, "kd", "live", store),
            "usual loop": usual_loop(data, teacher),
            "replay pass": replay_pass(data, teacher),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(options.rounds + 1):  # the first round warms up
            for name, run in contestants.items():
                seconds[name].append(run())
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    figures = {
        "images": options.images,
        "rounds": options.rounds,
        "images_per_s": {name: options.images / value for name, value in medians.items()},
        "replay_over_plain": medians["kd replay"] / medians["plain"],
        "plain_over_bare_speed": medians["bare loop"] / medians["plain"],
        "replay_over_usual_speed": medians["usual loop"] / medians["kd replay"],
        "live_over_plain": medians["kd live"] / medians["plain"],
    }
    record("distill_speed", figures)
    for name, value in figures["images_per_s"].items():  # type: ignore[attr-defined]
        print(f"{name:<14} {value:7.0f} images/s")
    for name in ("replay_over_plain", "plain_over_bare_speed", "replay_over_usual_speed", "live_over_plain"):
        print(f"{name:<24} {figures[name]:.3f}")


if __name__ == "__main__":
    main()
