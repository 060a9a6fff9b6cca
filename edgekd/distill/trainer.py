"""The training loop of teacher and student: one network, one method, checkpoints inside the epoch.

A killed run goes on from its last checkpoint and ends with the bytes of an unbroken one: order, augmentation and every
other draw are functions of (seed, step, sample), so the state is the weights, the optimizer and two counters.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgekd import processes
from edgekd.artifacts import ModelSpec
from edgekd.config import TrainConfig
from edgekd.data import Dataset
from edgekd.data.augment import Augment, Pixels, mixup, normalise
from edgekd.data.loader import Loader
from edgekd.data.table import Columns
from edgekd.distill.compiling import compile_student
from edgekd.distill.methods._base import Batch, Method, Network, Outputs, Setup, Side
from edgekd.distill.parallel import average_gradients, check_batch, gather, share, synchronise_batchnorm
from edgekd.distill.schedule import autocast_dtype, learning_rate, make_optimizer
from edgekd.distill.streams import Streams
from edgekd.distill.targets import LiveTargets, ReplayTargets, TeacherTargets
from edgekd.errors import RunError
from edgekd.models.taps import Tapped
from edgekd.progress import Progress
from edgekd.stage import write_atomic, write_json
from edgekd.tasks.classification import predict_torch, top1


def smaller(images: Tensor) -> Tensor:
    """[B, C, H, W] at three quarters of the size: progressive resizing, as in EfficientNetV2 (Tan and Le 2021, 4.2)."""
    return F.interpolate(images, scale_factor=0.75, mode="bilinear", antialias=True)


def _add(sums: dict[str, float], terms: Mapping[str, float]) -> None:
    for key, value in terms.items():
        sums[key] = sums.get(key, 0.0) + value


class Trainer:
    """Trains `student`, built from `spec`, on `data.train` with `method`; `targets` is None where no teacher is needed.

    Images are normalised as `spec` says, since that is how the checkpoint will be run. `teacher` is what a dry run says
    of the teacher, for the method's adapters; `views` is how many views of an image have stored targets; `table` is
    what a method reads of every training image. Images whose label is -1 are a stream of their own.
    State and `history.json` live in `out`. Raises ConfigError for a batch that cannot be split as asked, RunError when
    the loss is no longer finite.
    """

    def __init__(
        self,
        out: Path,
        student: Tapped,
        spec: ModelSpec,
        method: Method,
        targets: TeacherTargets | None,
        data: Dataset,
        augment: Augment,
        config: TrainConfig,
        seed: int,
        views: int | None = None,
        teacher: Side | None = None,
        table: Columns | None = None,
    ) -> None:
        self.out, self.data, self.config, self.seed, self.views = out, data, config, seed, views
        self.mean, self.std = spec.mean, spec.std
        self.device = processes.device()
        self.streams = Streams.of(data.train.labels, method.hold_out, seed)
        check_batch(config, len(self.streams))
        self.student = student
        self.model = student.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = deepcopy(self.model).requires_grad_(False) if config.ema is not None else None
        synchronise_batchnorm(self.model)
        self.labels = torch.from_numpy(data.train.labels).to(self.device)
        self.steps_per_epoch = self.streams.steps(config)
        self.total = config.epochs * self.steps_per_epoch
        self.augment, self.targets = augment, targets
        setup = Setup(
            student.side,
            teacher,
            data.num_classes,
            self.labels,
            seed,
            self.total,
            student_network=Network(self.model, spec.mean, spec.std, spec.input_shape),
            teacher_network=targets.network if isinstance(targets, LiveTargets) else None,
            taught=None if targets is None else self._taught,
            held=self._held if len(self.streams.held) else None,
            table=table,
            val=data.val,
        )
        with self._own_draws():
            torch.manual_seed(seed)
            method.prepare(setup)
        self.method = method.to(self.device)
        self.parameters = [*self.model.parameters(), *self.method.parameters()]
        self.optimizer = make_optimizer(self.parameters, config)
        self.loader = Loader(data.train.images, augment, self.device)
        self.dtype = autocast_dtype(config, self.device)
        self.compiled: str | None = None  # what came of `compile`
        self.step, self.epoch_seconds = 0, 0.0
        self.loss_sums: dict[str, float] = {}
        self.history: list[dict[str, float]] = []

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Weights to begin with, before `fit`."""
        for model in (self.model, self.average):
            if model is not None:
                model.load_state_dict(state)

    def fit(self, progress: Progress, name: str) -> dict[str, float]:
        """Train to the end; the model holds the chosen weights after. Returns the validation metrics."""
        torch.set_flush_denormal(True)  # denormals in a nearly dead channel slow a CPU convolution tenfold
        self._restore()
        processes.wait()
        self._compile(progress)
        saved = time.perf_counter()
        with progress.task(name, self.total, self.step) as task, self._own_draws():
            while self.step < self.total:
                epoch, skip = divmod(self.step, self.steps_per_epoch)
                plan = self.streams.plan(self.config, self.seed, epoch, self.views)[skip:]
                started = time.perf_counter()  # an epoch's seconds count the making of its batches too
                for (samples, view), pixels in zip(plan, self.loader(plan), strict=True):
                    labels = self.labels[torch.from_numpy(samples).to(self.device)]
                    _add(self.loss_sums, self.train_step(self._mixed(Batch(pixels, labels, samples, view))))
                    self.step += 1
                    self.epoch_seconds += time.perf_counter() - started
                    task.advance()
                    epoch_done = self.step % self.steps_per_epoch == 0  # its row comes first, then its checkpoint
                    if not epoch_done and time.perf_counter() - saved > self.config.checkpoint_seconds:
                        self._save()
                        saved = time.perf_counter()
                    started = time.perf_counter()
                self._end_epoch()
                self._save()
        return self._choose()

    def _view(self, samples: NDArray[np.int64], view: int) -> Batch:
        pixels = self.augment(self.data.train.images[samples], samples, view)
        return Batch(pixels, self.labels[torch.from_numpy(samples).to(self.device)], samples, view)

    def _taught(self, samples: NDArray[np.int64]) -> Outputs:
        assert self.targets is not None
        return self.targets(self._view(samples, 0))

    def _held(self, step: int, n: int) -> Batch:
        rows = self.streams.held
        chosen = np.random.default_rng([*b"held", self.seed, step]).choice(rows, min(n, len(rows)), replace=False)
        return self._view(chosen, 0)

    def _compile(self, progress: Progress) -> None:
        """As the config says, or as the run that this one goes on with has decided."""
        mode = self.config.compile
        if self.compiled is not None:
            mode = "on" if self.compiled.startswith("compiled") else "off"
        if mode == "off" or self.step == self.total:
            return
        size = min(self.config.batch_size, len(self.streams)) // self.config.accumulate // processes.count()
        images = self._normalised(self.data.train.images[:size])

        def forward() -> Tensor:
            with self._autocast():
                outputs = self.student(images)
            return outputs.logits.square().mean()

        with self._own_draws():
            done = compile_student(self.student, mode, forward, self.total - self.step)
        self.compiled = self.compiled or done
        progress.note(f"torch.compile: {done}")

    def _mixed(self, batch: Batch) -> Batch:
        """Mixup (Zhang et al. 2018) with one share a step, for both networks."""
        alpha = self.config.mixup
        if not alpha:
            return batch
        mix = float(np.random.default_rng([*b"mixup", self.seed, self.step]).beta(alpha, alpha))
        pixels = mixup(batch.pixels, mix)
        return Batch(pixels, batch.labels, batch.samples, batch.view, batch.labels.flip(0), mix)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimizer; the value of every term."""
        self._seed()
        batch = self.method.transform_batch(batch, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step, self.steps_per_epoch)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.config.accumulate
        size = len(batch.labels) // parts
        sums: dict[str, float] = {}
        for i in range(parts):
            terms = self._terms(batch[i * size : (i + 1) * size] if parts > 1 else batch, i)
            terms = {key: term / parts for key, term in terms.items()}
            self.method.backward(terms)
            _add(sums, {key: term.item() for key, term in terms.items()})
        average_gradients(self.parameters)
        self.optimizer.step()
        self.method.after_step(self.step)
        if self.average is not None:
            self._update_average()
        if not math.isfinite(loss := sum(sums.values())):
            raise RunError(f"the loss is {loss} at step {self.step}", "Lower distill.lr (or teacher.train.lr).")
        return sums

    def _terms(self, batch: Batch, part: int) -> dict[str, Tensor]:
        """The method's terms on the whole of part `part`, of whose outputs each process has computed its share."""
        own = share(batch)
        teacher = None
        if self.targets is not None:
            stored = isinstance(self.targets, ReplayTargets)
            with self._autocast():  # a live teacher in the student's precision
                teacher = self.targets(batch) if stored else gather(self.targets(own))
        self._seed(part, 1 + processes.rank())  # dropout differs between the shares
        images = self._normalised(own.pixels)
        with self._autocast():
            outputs = self.student(images)
        outputs = gather(outputs)
        self._seed(part)
        terms = self._loss(outputs, teacher, batch)
        if batch.partners is None or isinstance(batch.mix, Tensor):  # the method has mixed the terms
            return terms
        self._seed(part)
        others = Batch(batch.pixels, batch.partners, batch.samples, batch.view)
        second = self._loss(outputs, teacher, others)
        return {key: batch.mix * term + (1 - batch.mix) * second[key] for key, term in terms.items()}

    def _loss(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        with self._autocast():  # for adapters that convolve; methods turn it off where it would cost accuracy
            return self.method.loss(student, teacher, batch, self.step)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def _normalised(self, pixels: Pixels) -> Tensor:
        images = normalise(pixels, self.mean, self.std).to(self.device)
        return smaller(images) if self.step < self.config.progressive * self.total else images

    def _own_draws(self) -> AbstractContextManager[None]:
        """torch's generators are the trainer's to seed, and the caller's again after."""
        return torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else [])

    def _seed(self, *stream: int) -> None:
        """torch's generators as a function of the step, so that a resumed run draws what an unbroken one does."""
        words = np.random.SeedSequence([self.seed, self.step, *stream]).generate_state(1, np.uint64)
        torch.manual_seed(int(words[0]) >> 1)

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

    def _validate(self, model: torch.nn.Module) -> float:
        """Top-1 of what would ship."""
        val = self.data.val
        shipped = self.method.export(model).eval()
        return top1(predict_torch(shipped, val.images, self.mean, self.std), val.labels)

    def _end_epoch(self) -> None:
        row = {
            "epoch": len(self.history) + 1,
            "loss": sum(self.loss_sums.values()) / self.steps_per_epoch,
            "val_top1": self._validate(self.model),
            "lr": learning_rate(self.config, self.step - 1, self.steps_per_epoch),
            "seconds": self.epoch_seconds,
        }
        if len(self.loss_sums) > 1:
            row |= {f"loss_{key}": value / self.steps_per_epoch for key, value in self.loss_sums.items()}
        if self.average is not None:
            row["val_top1_ema"] = self._validate(self.average)
        self.history.append(row)
        self.loss_sums, self.epoch_seconds = {}, 0.0
        if processes.rank() == 0:
            write_json(self.out / "history.json", self.history)

    def _choose(self) -> dict[str, float]:
        """The last epoch's weights, or their moving average where validation prefers it."""
        last = self.history[-1]
        if self.average is not None and last["val_top1_ema"] > last["val_top1"]:
            self.model.load_state_dict(self.average.state_dict())
        self.model.eval()
        return {"val_top1": max(last["val_top1"], last.get("val_top1_ema", 0.0))}

    def _save(self) -> None:
        if processes.rank():
            return
        state = {
            "model": self.model.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "step": self.step,
            "loss_sums": self.loss_sums,
            "epoch_seconds": self.epoch_seconds,
            "history": self.history,
            "compiled": self.compiled,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.out / "state.pt", buffer.getvalue())

    def _restore(self) -> None:
        file = self.out / "state.pt"
        if not file.exists():
            return
        state: dict[str, Any] = torch.load(file, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.loss_sums = state["step"], state["loss_sums"]
        self.epoch_seconds, self.history, self.compiled = state["epoch_seconds"], state["history"], state["compiled"]
