"""What the logit methods share: float32 rows, the label term, classes split off by a mask, checks of options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._schedules import run_steps, warmup
from edgekd.errors import ConfigError
from edgekd.tasks.classification import hard_loss

NOTHING = torch.finfo(torch.float32).min  # a logit of no mass; with -inf a row of nothing else would be nan


class LogitMethod(Method):
    """Owns the label term: subclasses give `terms`, which sees both sides' logits [N, K] in float32, autocast off.

    `minimum` is what the terms but "ce" sum to where the student's logits equal the teacher's; None: it depends.
    """

    minimum: ClassVar[float | None] = 0.0
    ce_weight: float = 1.0

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        share(self, label_smoothing=label_smoothing)

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None
        with torch.autocast(student.logits.device.type, enabled=False):
            logits = student.logits.float()
            ce = hard_loss(logits, batch.labels, self.label_smoothing)
            return {"ce": self.ce_weight * ce, **self.terms(logits, teacher.logits.float(), batch, step)}

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        """The method's own named, weighted scalar terms; `ce` among them takes the place of the plain label term."""
        raise NotImplementedError(f"{type(self).__name__} has no terms")


class WarmedParts(LogitMethod):
    """T^2 [alpha part + beta part], both warmed up over the first share of the run: DKD and what follows it."""

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        warmup: float = 1 / 12,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        positive(self, temperature=temperature)
        not_negative(self, alpha=alpha, beta=beta)
        share(self, warmup=warmup)
        self.temperature, self.alpha, self.beta, self.warmup = temperature, alpha, beta, warmup
        self.steps = 0  # of the run, where the warm-up asks

    def prepare(self, setup: Setup) -> None:
        if self.warmup:
            self.steps = run_steps(self, setup, "warmup")

    def scale(self, step: int) -> float:
        """What both parts are multiplied with: T^2, less while warming up."""
        return warmup(step, self.steps, self.warmup) * self.temperature**2


def class_mask(classes: Tensor, num_classes: int) -> Tensor:
    """[N, K], True at each row's class of `classes` [N]."""
    return classes[:, None] == torch.arange(num_classes, device=classes.device)


def log_softmax_without(logits: Tensor, mask: Tensor) -> Tensor:
    """log softmax [N, K] over the classes where `mask` is False; 0 where it is True, so that `kl` skips them."""
    return F.log_softmax(logits.masked_fill(mask, NOTHING), 1).masked_fill(mask, 0.0)


def log_binary(logits: Tensor, mask: Tensor) -> Tensor:
    """log of the mass on the masked classes and on the others, [N, 2]."""
    log_p = F.log_softmax(logits, 1)
    return torch.stack([log_p.masked_fill(m, NOTHING).logsumexp(1) for m in (~mask, mask)], 1)


def kl(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    """KL(teacher || student) of each row [N] of log probabilities [N, K]."""
    return (log_teacher.exp() * (log_teacher - log_student)).sum(1)


def positive(method: Method, **options: float) -> None:
    _check(method, options, lambda x: 0 < x < math.inf, "a number above 0")


def not_negative(method: Method, **options: float) -> None:
    _check(method, options, lambda x: 0 <= x < math.inf, "0 or a number above it")


def share(method: Method, **options: float) -> None:
    _check(method, options, lambda x: 0 <= x <= 1, "a number from 0 to 1")


def _check(method: Method, options: dict[str, float], holds: Callable[[float], bool], rule: str) -> None:
    for name, value in options.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not holds(value):
            raise ConfigError(f"distill.method {type(method).__name__.lower()}: {name} is {value!r}", f"Write {rule}.")
