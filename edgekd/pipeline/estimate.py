"""How long the stages may take: images x MACs over the rate of one timed training step of ResNet-20 here.

A training step costs three forward passes. The student is not known before the search and counts as ResNet-20.
"""

from __future__ import annotations

import contextlib
import time

import torch
from torch.nn import functional as F

from edgekd.artifacts import ModelSpec
from edgekd.catalog import METHODS, SCORERS
from edgekd.config import TrainConfig
from edgekd.models import build_model, cost
from edgekd.pipeline.inputs import Inputs


def estimate(inputs: Inputs) -> dict[str, float]:
    """Rough seconds of every stage, on this machine."""
    config, data = inputs.config, inputs.data
    reference = ModelSpec("edgekd", "resnet20", data.num_classes, data.input_shape)
    model: torch.nn.Module = build_model(reference).train().to(memory_format=torch.channels_last)
    images = torch.zeros(64, *data.input_shape).to(memory_format=torch.channels_last)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        torch.autograd.backward(F.cross_entropy(model(images), torch.zeros(64, dtype=torch.long)))
        seconds.append(time.perf_counter() - begun)
    per_image = sorted(seconds)[1] / 64
    student = cost(model, data.input_shape).macs
    with contextlib.suppress(FileNotFoundError):
        student = cost(build_model(inputs.student), data.input_shape).macs
    own = config.teacher.source is None
    macs = cost(build_model(inputs.teacher_spec if own else inputs.teacher), data.input_shape).macs
    forward, n, test = per_image / 3 * macs / cost(model, data.input_shape).macs, len(data.train), len(data.test)
    train = per_image * student / cost(model, data.input_shape).macs * n
    stored = all(METHODS[m.name].replayable for m in inputs.methods if m.name in METHODS) and not config.distill.mixup
    passes = config.distill.views if stored and config.distill.targets == "replay" else config.distill.epochs
    passes *= 1 + len(config.teachers)
    runs_networks = not config.search.student and not SCORERS[config.search.scorer].cost.startswith("none")
    search = config.search.evaluations * config.search.inits if runs_networks else 0
    return {
        "teacher": _full_epochs(config.teacher.train) * n * forward * 3,
        "search": 10 + search * config.search.batch_size * per_image,
        "distill": passes * n * forward
        + _full_epochs(config.distill) * train
        + config.distill.blockwise.epochs * (train + 3 * n * forward),
        "quantize": 20 + config.quantize.qad.epochs * (2 * train + n * forward),
        "export": 20 + test * (forward + 4 * train / n / 3),
        "profile": 5 + sum(config.profile.batches) * (config.profile.runs + config.profile.warmup) * 2 * forward,
    }


def _full_epochs(config: TrainConfig) -> float:
    """Epochs at full size that cost as much: an image at 3/4 the size has 9/16 of the MACs."""
    return config.epochs * (1 - config.progressive * 7 / 16)
