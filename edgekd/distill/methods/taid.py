"""TAID: a teacher that starts at the student and moves away as it follows (Shing et al. 2025, arXiv 2501.16937).

The targets are p_t = softmax((1 - t) sg(s) + t z), z the teacher's logits, s the student's without gradient, whatever
loss compares them: `method` is any method of logits, with its options, or a list of those. With J_n the cross-entropy
of the student with p_t in step n, and the momentum m from 0,

    delta = (J_(n-1) - J_n) / J_(n-1),   m <- beta m + (1 - beta) delta,
    t <- min(end, max(start + (end - start) n / N, t + alpha sigmoid(m) (1 - t))):

t rises in a line over the N steps of the run, and faster where the student learns. Defaults are the authors', who
start at 0.4, or at 0.2 over a wide gap, and compare with KL(p_t || softmax(s)) and no labels:
`taid: {method: {kd: {temperature: 1, alpha: 1}}}`. By default kd is wrapped as it is, because at a low t there is
little to learn but the label: to first order the gradient is t times that of KD. alpha counts steps, and of ten
thousand: in shorter runs the line is nearly all.

J is that cross-entropy whichever loss is wrapped: a divergence may be 0, and its relative change anything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.catalog import MethodRow
from edgekd.config import method_choices
from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods._logits import not_negative, share
from edgekd.distill.methods._schedules import run_steps
from edgekd.distill.parallel import average
from edgekd.errors import ConfigError


class Interpolation(nn.Module):
    """The moving target by itself, for any loop: call it for a step's targets, then `update` once a step.

    All that a resumed run needs is in its buffers; over several processes J is averaged, so that t is one for all.
    """

    t: Tensor
    previous: Tensor  # J of the last step, nan before the first
    momentum: Tensor

    def __init__(self, start: float = 0.4, end: float = 1.0, alpha: float = 5e-4, beta: float = 0.99) -> None:
        super().__init__()
        self.start, self.end, self.alpha, self.beta = start, end, alpha, beta
        for name, value in (("t", start), ("previous", torch.nan), ("momentum", 0.0)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))
        self._seen: list[Tensor] = []  # J of each part of the step

    @torch.no_grad()
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits of p_t [N, K], without gradient, of logits [N, K]."""
        target = torch.lerp(student, teacher, self.t.to(student.dtype))
        self._seen.append(F.cross_entropy(student, target.softmax(1)).double())
        return target

    @torch.no_grad()
    def update(self, done: float) -> None:
        """After a step of the optimizer; `done` is the share of the run that is over then."""
        loss = torch.stack(self._seen).mean()
        self._seen.clear()
        average([loss])
        t = self.t
        if not self.previous.isnan():
            self.momentum.lerp_((self.previous - loss) / self.previous.clamp_min(1e-15), 1 - self.beta)
            t = t + self.alpha * self.momentum.sigmoid() * (1 - t)
            self.t.copy_(t.clamp(min=self.start + (self.end - self.start) * done, max=self.end))
        self.previous.copy_(loss)


class TAID(Method):
    """Owns the label term by way of the method it wraps. Raises ConfigError for one that needs more than logits."""

    minimum: ClassVar[float | None] = 0.0  # kd's

    def __init__(
        self,
        method: Any = "kd",
        start: float = 0.4,
        end: float = 1.0,
        alpha: float = 5e-4,
        beta: float = 0.99,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        share(self, start=start, end=end, beta=beta)
        not_negative(self, alpha=alpha)
        if end < start:
            raise ConfigError(f"distill.method taid: end {end} is below start {start}", "Let t rise.")
        self.method, self.wrapped = make_method(method_choices(method), label_smoothing, torch.initial_seed())
        more = [need for need in self.wrapped.needs if need not in ("labels", "all_logits")]
        if more:
            raise ConfigError(
                f"distill.method taid: {self.wrapped.name} needs {more[0]}, and only the teacher's logits are moved",
                "Wrap methods of logits, such as kd or dkd; list others beside taid.",
            )
        self.interpolation = Interpolation(start, end, alpha, beta)
        self.steps = 0  # of the run

    def row(self, row: MethodRow) -> MethodRow:
        wrapped = {key: getattr(self.wrapped, key) for key in ("needs", "min_classes", "top_logits", "permutable")}
        return replace(row, **wrapped)

    def prepare(self, setup: Setup) -> None:
        self.steps = run_steps(self, setup, "t")
        self.method.prepare(setup)

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None
        target = self.interpolation(student.logits.float(), teacher.logits.float())
        return self.method.loss(student, replace(teacher, logits=target), batch, step)

    @property
    def surgery(self) -> bool:
        return self.method.surgery

    def backward(self, terms: dict[str, Tensor]) -> None:
        self.method.backward(terms)

    def after_step(self, step: int) -> None:
        self.interpolation.update((step + 1) / self.steps)
        self.method.after_step(step)
