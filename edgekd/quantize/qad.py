"""Quantization-aware distillation: the fake-quantized student learns from the teacher and from its own float self.

loss = w T^2 KL(teacher || q) + (1 - w) T^2 KL(student_fp32 || q), both from softened logits at temperature T; with
`qad.method` the terms of that method, but for the labels', stand in place of the teacher's KL.

BatchNorm is folded before (see `graph.py`): its statistics are those of the float student from the first step to the
last. Scales are learned with the weights (LSQ, Esser et al. 2020).

Folding leaves channels of one layer with kernels of very different sizes, and no learning rate would suit them all.
Gradients are scaled by the squared norm of their channel's kernel w_c, which makes a step of SGD on w_c the step on
its direction w_c / ||w_c||: the rate is relative to the kernel, however the float student was trained.

After every epoch the validation KL is taken; training ends `patience` epochs after its least, whose weights are kept.
"""

from __future__ import annotations

import io
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgekd.config import QadConfig, method_choices
from edgekd.data import Dataset
from edgekd.data.augment import Augment, epoch_order, normalise
from edgekd.distill.methods._base import Batch, Method, Outputs, Setup, Side
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.kd import kd_loss
from edgekd.errors import ConfigError, RunError
from edgekd.progress import Progress
from edgekd.quantize._fake import EPS, learn_scale
from edgekd.quantize._judge import Judge
from edgekd.quantize.graph import quantizers, restore
from edgekd.stage import write_atomic
from edgekd.tasks.classification import predict_torch

CHECKPOINT_SECONDS = 20.0  # a killed run loses at most this much

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of images / 255, per channel


class Qad:
    """Trains `prepared`, a calibrated graph of `student`, in place. State lives in `out/qad.pt` until `finish`.

    `student` and `teacher` are float and in eval mode; each network gets the same view in its own normalisation.
    Raises ConfigError for a method that needs more than logits.
    """

    def __init__(
        self,
        out: Path,
        prepared: GraphModule,
        student: nn.Module,
        teacher: nn.Module,
        normalisations: tuple[Normalisation, Normalisation],  # of student and teacher
        judge: Judge,
        data: Dataset,
        config: QadConfig,
        seed: int,
    ) -> None:
        self.file = out / "qad.pt"
        self.prepared, self.student, self.teacher = prepared, student, teacher
        self.normalisations, self.data, self.config, self.seed = normalisations, data, config, seed
        self.judge = judge
        self.augment = Augment(seed, data.input_shape[1] // 8, data.flips)
        self.gradient_scale = gradient_scales(prepared)
        self.scales = [learn_scale(module) for module in quantizers(prepared)] if config.learn_scales else []
        self.steps_per_epoch = max(1, len(data.train) // config.batch_size)
        self.steps = max(1, round(config.epochs * self.steps_per_epoch))
        device = next(prepared.parameters()).device
        self.labels = torch.from_numpy(data.train.labels).to(device)
        self.method = None if config.method is None else self._prepared_method(device)
        adapters = () if self.method is None else self.method.parameters()
        self.optimizer = torch.optim.SGD([*prepared.parameters(), *adapters], lr=config.lr, momentum=0.9)
        self.step, self.loss_sum = 0, 0.0
        self.val_kls: list[float] = []  # after every epoch
        self.best: dict[str, Tensor] = {}

    def fit(self, progress: Progress) -> dict[str, Any]:
        """Train to the last step, or until validation gets no better; `prepared` holds the best weights after.

        Returns {steps, loss, val_kls}. Raises RunError when the loss is no longer finite.
        """
        torch.set_flush_denormal(True)  # denormals in a nearly dead channel slow a CPU convolution tenfold
        self._restore()
        saved = time.perf_counter()
        with progress.task("quantize (QAD)", self.steps, self.step) as task:
            while self.step < self.steps and not self._settled():
                self.loss_sum += self._train_step()
                self.step += 1
                task.advance()
                ended = self.step == self.steps or self.step % self.steps_per_epoch == 0
                if ended:
                    self._validate()
                if ended or time.perf_counter() - saved > CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.perf_counter()
        restore(self.prepared, self.best)
        return {"steps": self.step, "loss": self.loss_sum / self.step, "val_kls": self.val_kls}

    def _validate(self) -> None:
        logits = predict_torch(self.prepared, self.data.val.images, *self.normalisations[0])
        self.val_kls.append(self.judge.kl(torch.from_numpy(logits)))
        if self.val_kls[-1] == min(self.val_kls):
            self.best = {key: value.detach().clone() for key, value in self.prepared.state_dict().items()}

    def _settled(self) -> bool:
        if not self.val_kls:
            return False
        return len(self.val_kls) - 1 - self.val_kls.index(min(self.val_kls)) >= self.config.patience

    def _prepared_method(self, device: torch.device) -> Method:
        method, row = make_method(method_choices(self.config.method), 0.0, self.seed)
        missing = [need for need in row.needs if need not in ("labels", "all_logits")]
        if missing:
            raise ConfigError(
                f"quantize.qad.method: {row.name} needs {' and '.join(missing)}, and QAD compares logits",
                "Choose a method of the logit family: edgekd methods lists them.",
            )
        side = Side({}, 0, nn.Identity())
        method.prepare(Setup(side, side, self.data.num_classes, self.labels, self.seed, self.steps))
        return method.to(device)

    def _train_step(self) -> float:
        epoch, position = divmod(self.step, self.steps_per_epoch)
        size, config = self.config.batch_size, self.config
        samples = epoch_order(len(self.data.train), self.seed, epoch)[position * size : (position + 1) * size]
        pixels = self.augment(self.data.train.images[samples], samples, epoch)
        device = next(self.prepared.parameters()).device
        own, other = (normalise(pixels, *statistics).to(device) for statistics in self.normalisations)
        with torch.no_grad():
            teacher, student = self.teacher(other), self.student(own)
        logits: Tensor = self.prepared(own)
        w = config.teacher_weight
        if self.method is None:
            from_teacher = kd_loss(logits, teacher, config.temperature)
        else:
            batch = Batch(pixels, self.labels[torch.from_numpy(samples).to(device)], samples, epoch)
            terms = self.method.loss(Outputs(logits), Outputs(teacher), batch, self.step)
            from_teacher = torch.stack([term for name, term in terms.items() if name != "ce"]).sum()
        loss = w * from_teacher + (1 - w) * kd_loss(logits, student, config.temperature)
        if not math.isfinite(value := loss.item()):
            raise RunError(f"the QAD loss is {value} at step {self.step}", "Lower quantize.qad.lr.")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter, scale in self.gradient_scale:
            assert parameter.grad is not None
            parameter.grad.mul_(scale)
        for scale in self.scales:  # relative to its size, as the kernels are to theirs
            if scale.grad is not None:
                scale.grad.mul_(scale.detach().square())
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        self.optimizer.step()
        if self.method is not None:
            self.method.after_step(self.step)
        for scale in self.scales:
            scale.data.clamp_min_(EPS)
        return value

    def _save(self) -> None:
        state = {
            "prepared": self.prepared.state_dict(),
            "method": {} if self.method is None else self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "loss_sum": self.loss_sum,
            "val_kls": self.val_kls,
            "best": self.best,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.file, buffer.getvalue())

    def _restore(self) -> None:
        if not self.file.exists():
            return
        state = torch.load(self.file, map_location=next(self.prepared.parameters()).device, weights_only=True)
        restore(self.prepared, state["prepared"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.method is not None:
            self.method.load_state_dict(state["method"])
        self.step, self.loss_sum = state["step"], state["loss_sum"]
        self.val_kls, self.best = state["val_kls"], state["best"]


def gradient_scales(prepared: GraphModule) -> list[tuple[nn.Parameter, Tensor]]:
    """The kernels [C, ...] and ||w_c||^2 [C, 1, ...] of each output channel."""
    kernels = [parameter for parameter in prepared.parameters() if parameter.ndim > 1]
    norms = [kernel.detach().flatten(1).square().sum(1) for kernel in kernels]
    return [(k, norm.view(-1, *[1] * (k.ndim - 1))) for k, norm in zip(kernels, norms, strict=True)]
