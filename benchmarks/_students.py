"""The CIFAR-100 students of the quantization benchmarks: trained once, kept under `--store`, quantized from there.

ResNet-20, ResNet-56, a MobileNetV2-like net (inverted residuals, 28 M MACs) and a small ViT are distilled from the
ResNet-56 by kd in the short protocol: the first 20,000 training images, 20 epochs. `resnet56-full` is that teacher
itself, which comes trained on all 50,000 and knows them by heart. `val` images from behind those 20,000 choose (what is
quantized, which epoch), and the 10,000 test images report; the teacher has seen the former.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from _cifar100 import CIFAR100, SHAPE, short, teacher_of
from torch import Tensor

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.config import DistillConfig, QuantizeConfig
from edgekd.data import Dataset
from edgekd.data.augment import normalise
from edgekd.distill import distill
from edgekd.models import build_model, write_state
from edgekd.profile import predict
from edgekd.profile.devices import load_device
from edgekd.progress import NullProgress
from edgekd.quantize import CALIBRATION_BATCH, calibration_images, quantize
from edgekd.stage import fingerprint
from edgekd.tasks.classification import top1

DEVICE = load_device("x86-cpu")
OPSET, SEED = 18, 0
V2 = {"depths": [1, 2, 2, 2, 2, 2, 1], "widths": [16, 24, 32, 48, 64, 96, 160], "expansions": [1, 4, 4, 4, 4, 4, 4]}
V2 |= {"kernels": [3] * 7, "squeeze": [0] * 7}
VIT = {"hidden_dim": 128, "num_heads": [2] * 4, "mlp_ratio": [2.0] * 4, "image_size": 32, "patch": 4}
STUDENTS = {
    "resnet20": ModelSpec("edgekd", "resnet20", 100, SHAPE, {"shortcut": "B"}, **CIFAR100),
    "resnet56": ModelSpec("edgekd", "resnet56", 100, SHAPE, {"shortcut": "B"}, **CIFAR100),
    "mobilenetv2": ModelSpec(
        "edgekd", "mobilenet", 100, SHAPE, {**V2, "stem": 16, "head": 512, "small_stem": True}, **CIFAR100
    ),
    "vit": ModelSpec("edgekd", "autoformer", 100, SHAPE, VIT, **CIFAR100),
}
TRAINING: dict[str, dict[str, Any]] = {"vit": {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05}}
NETS = (*STUDENTS, "resnet56-full")


@dataclass(frozen=True)
class Students:
    """`directory` holds CIFAR-100 and its ResNet-56; everything that is made goes to `store` and is made once."""

    directory: Path
    store: Path
    epochs: int
    count: int
    val: int

    @staticmethod
    def arguments(description: str | None) -> argparse.ArgumentParser:
        """The options that `of` reads."""
        parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
        parser.add_argument("data", type=Path)
        parser.add_argument("--store", type=Path, required=True, help="students and graphs are kept here")
        parser.add_argument("--epochs", type=int, default=20, help="of distillation")
        parser.add_argument("--count", type=int, default=20_000, help="training images")
        parser.add_argument("--val", type=int, default=5_000, help="images that choose")
        return parser

    @classmethod
    def of(cls, options: argparse.Namespace) -> Students:
        return cls(options.data, options.store, options.epochs, options.count, options.val)

    @property
    def protocol(self) -> dict[str, int]:
        return {"epochs": self.epochs, "images": self.count, "val": self.val}

    @cached_property
    def data(self) -> Dataset:
        return short(self.directory, self.count, self.val)

    @cached_property
    def teacher(self) -> ModelSpec:
        return teacher_of(self.directory)

    def home(self, net: str) -> Path:
        """Where everything of one net is."""
        return self.store / f"{net}-{self.epochs}x{self.count}"

    def checkpoint(self, net: str) -> Checkpoint:
        """The float student; a training that was cut goes on."""
        out = self.home(net) / "float"
        if (out / "checkpoint.json").is_file():
            return Checkpoint.load(out)
        out.mkdir(parents=True, exist_ok=True)
        if net == "resnet56-full":
            write_state(build_model(self.teacher), out / "model.safetensors")
            Checkpoint(str(out), replace(self.teacher, weights=None)).save()
            return Checkpoint.load(out)
        config = DistillConfig(
            epochs=self.epochs, views=self.epochs, store=str(self.store / "targets"), **TRAINING.get(net, {})
        )
        return distill(
            out,
            teacher=self.teacher,
            student=STUDENTS[net],
            data=self.data,
            config=config,
            seed=SEED,
            progress=NullProgress(),
        )

    def quantized(self, net: str, config: QuantizeConfig) -> tuple[Path, dict[str, Any]]:
        """The directory that `quantize` fills, with `student-ptq.onnx` and `student-qad.onnx`, and its record."""
        inputs = {"config": config.model_dump(mode="json"), "val": self.val}
        out = self.home(net) / f"quantize-{fingerprint(inputs)[:8]}"
        if not (out / "quantize.json").is_file():
            out.mkdir(parents=True, exist_ok=True)
            quantize(
                out,
                student=self.checkpoint(net),
                teacher=self.teacher,
                data=self.data,
                device=DEVICE,
                config=config,
                seed=SEED,
                opset=OPSET,
                progress=NullProgress(),
            )
        return out, json.loads((out / "quantize.json").read_text())

    def calibration(self, config: QuantizeConfig) -> list[Tensor]:
        """The images that `quantize` calibrates on, normalised: batches of [B, 3, 32, 32]."""
        images = calibration_images(self.data, config.calibration, SEED)
        parts = (images[i : i + CALIBRATION_BATCH] for i in range(0, len(images), CALIBRATION_BATCH))
        return [normalise(part, *CIFAR100.values()) for part in parts]

    def top1(self, graph: Path) -> float:
        """By ONNX Runtime, of all test images."""
        logits = predict(graph, self.data.test.images, *CIFAR100.values(), DEVICE)
        return top1(logits, self.data.test.labels)
