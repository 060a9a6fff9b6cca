"""The training loop of teacher and student: one network, one method, checkpoints inside the epoch.

A killed run goes on from its last checkpoint and ends with the bytes of an unbroken one: order and augmentation are
functions of (seed, epoch, sample), so the state is the weights, the optimizer and two counters.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.artifacts import ModelSpec
from edgekd.config import TrainConfig
from edgekd.data import Dataset
from edgekd.data.augment import Augment, epoch_order, normalise
from edgekd.distill.methods._base import Batch, Method, Outputs
from edgekd.distill.muon import Muon
from edgekd.distill.targets import TeacherTargets
from edgekd.errors import RunError
from edgekd.profile.devices import isa_features
from edgekd.progress import Progress
from edgekd.stage import write_atomic, write_json
from edgekd.tasks.classification import predict_torch, top1


def training_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def augmentation(config: TrainConfig, data: Dataset, seed: int) -> Augment:
    """Pad-crop by an eighth of the image and flips where the data allows them, unless the config says otherwise."""
    pad = data.input_shape[1] // 8 if config.pad is None else config.pad
    return Augment(seed, pad, data.flips if config.flip is None else config.flip)


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """bf16 where the processor computes in it: emulated bf16 convolutions are ten times slower than fp32."""
    if config.precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else {"avx512_bf16", "amx_bf16"} & isa_features()
        return torch.bfloat16 if fast else None
    return torch.bfloat16 if config.precision == "bf16" else None


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up to the peak, then a cosine to zero at the last step."""
    warm, total = round(config.warmup_epochs * steps_per_epoch), config.epochs * steps_per_epoch
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def _optimizer(modules: nn.ModuleList, config: TrainConfig) -> torch.optim.Optimizer:
    """Weight decay on matrices and kernels only; biases and BatchNorm have one dimension."""
    trained = [p for p in modules.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "muon":
        return Muon(groups, lr=config.lr)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)


def smaller(images: Tensor) -> Tensor:
    """[B, C, H, W] at three quarters of the size: progressive resizing, as in EfficientNetV2 (Tan and Le 2021, 4.2)."""
    return F.interpolate(images, scale_factor=0.75, mode="bilinear", antialias=True)


class Trainer:
    """Trains `model`, built from `spec`, on `data.train` with `method`; `targets` is None where no teacher is needed.

    Images are normalised as `spec` says, since that is how the checkpoint will be run.
    State and `history.json` live in `out`. Raises RunError when the loss is no longer finite.
    """

    def __init__(
        self,
        out: Path,
        model: nn.Module,
        spec: ModelSpec,
        method: Method,
        targets: TeacherTargets | None,
        data: Dataset,
        augment: Augment,
        config: TrainConfig,
        seed: int,
        views: int | None = None,
    ) -> None:
        self.out, self.data, self.augment, self.config, self.seed, self.views = out, data, augment, config, seed, views
        self.mean, self.std = spec.mean, spec.std
        self.device = training_device()
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.method, self.targets = method.to(self.device), targets
        self.optimizer = _optimizer(nn.ModuleList([self.model, self.method]), config)
        self.average = deepcopy(self.model).requires_grad_(False) if config.ema is not None else None
        self.dtype = autocast_dtype(config, self.device)
        self.labels = torch.from_numpy(data.train.labels).to(self.device)
        self.steps_per_epoch = max(1, len(data.train) // config.batch_size)
        self.step, self.loss_sum, self.epoch_seconds = 0, 0.0, 0.0
        self.history: list[dict[str, float]] = []

    def fit(self, progress: Progress, name: str) -> dict[str, float]:
        """Train to the end; the model holds the chosen weights after. Returns the validation metrics."""
        torch.set_flush_denormal(True)  # denormals in a nearly dead channel slow a CPU convolution tenfold
        self._restore()
        total = self.config.epochs * self.steps_per_epoch
        saved = time.perf_counter()
        with progress.task(name, total, self.step) as task:
            while self.step < total:
                for batch in self._epoch(self.step // self.steps_per_epoch, self.step % self.steps_per_epoch):
                    started = time.perf_counter()
                    self.loss_sum += self._train_step(batch)
                    self.step += 1
                    self.epoch_seconds += time.perf_counter() - started
                    task.advance()
                    epoch_done = self.step % self.steps_per_epoch == 0  # its row comes first, then its checkpoint
                    if not epoch_done and time.perf_counter() - saved > self.config.checkpoint_seconds:
                        self._save()
                        saved = time.perf_counter()
                self._end_epoch()
                self._save()
        return self._choose()

    def _epoch(self, epoch: int, skip: int) -> Iterator[Batch]:
        order = epoch_order(len(self.data.train), self.seed, epoch)
        size = self.config.batch_size
        view = epoch if self.views is None else epoch % self.views
        for step in range(skip, self.steps_per_epoch):
            samples = order[step * size : (step + 1) * size]
            pixels = self.augment(self.data.train.images[samples], samples, view)
            yield Batch(pixels, self.labels[torch.from_numpy(samples).to(self.device)], samples, view)

    def _train_step(self, batch: Batch) -> float:
        batch = self.method.transform_batch(batch, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step, self.steps_per_epoch)
        teacher = self.targets(batch) if self.targets is not None else None
        self.model.train()
        images = normalise(batch.pixels, self.mean, self.std).to(self.device)
        if self.step < self.config.progressive * self.config.epochs * self.steps_per_epoch:
            images = smaller(images)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            logits: Tensor = self.model(images)
        terms = self.method.loss(Outputs(logits.float()), teacher, batch, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.method.backward(terms)
        self.optimizer.step()
        self.method.after_step(self.step)
        if self.average is not None:
            self._update_average()
        loss = float(sum(term.item() for term in terms.values()))
        if not math.isfinite(loss):
            raise RunError(f"the loss is {loss} at step {self.step}", "Lower distill.lr (or teacher.train.lr).")
        return loss

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential moving average of weights and BatchNorm statistics, warmed up by (1 + t) / (10 + t)."""
        assert self.average is not None and self.config.ema is not None
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        own = self.model.state_dict()
        for key, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(own[key], 1 - decay)
            else:
                value.copy_(own[key])

    def _validate(self, model: nn.Module) -> float:
        val = self.data.val
        return top1(predict_torch(model.eval(), val.images, self.mean, self.std), val.labels)

    def _end_epoch(self) -> None:
        row = {
            "epoch": len(self.history) + 1,
            "loss": self.loss_sum / self.steps_per_epoch,
            "val_top1": self._validate(self.model),
            "lr": learning_rate(self.config, self.step - 1, self.steps_per_epoch),
            "seconds": self.epoch_seconds,
        }
        if self.average is not None:
            row["val_top1_ema"] = self._validate(self.average)
        self.history.append(row)
        self.loss_sum, self.epoch_seconds = 0.0, 0.0
        write_json(self.out / "history.json", self.history)

    def _choose(self) -> dict[str, float]:
        """The last epoch's weights, or their moving average where validation prefers it."""
        last = self.history[-1]
        if self.average is not None and last["val_top1_ema"] > last["val_top1"]:
            self.model.load_state_dict(self.average.state_dict())
        self.model.eval()
        return {"val_top1": max(last["val_top1"], last.get("val_top1_ema", 0.0))}

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "step": self.step,
            "loss_sum": self.loss_sum,
            "epoch_seconds": self.epoch_seconds,
            "history": self.history,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.out / "state.pt", buffer.getvalue())

    def _restore(self) -> None:
        file = self.out / "state.pt"
        if not file.exists():
            return
        state = torch.load(file, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.loss_sum = state["step"], state["loss_sum"]
        self.epoch_seconds, self.history = state["epoch_seconds"], state["history"]
