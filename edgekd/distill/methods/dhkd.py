"""DHKD: a second head regresses the teacher's logits, and is dropped (Yang et al. 2025, arXiv 2411.08937).

On one head cross-entropy and a loss on the logits themselves harm each other; the backbone gains from both. The head h
reads the student's embedding e and learns by BinaryKL-Norm, with d = sigmoid((h(e) - t) / T),

    L = weight T^2 sum_c [ 1/2 log(1/2 / d_c) + 1/2 log(1/2 / (1 - d_c)) ], batch mean
      = weight T^2 sum_c log cosh((h(e)_c - t_c) / (2 T)),

computed in the second form, which is finite everywhere: its gradient is T/2 tanh. The student's own head learns the
labels, or what is listed beside: `[pld, dhkd]`.

weight 1 and T = 2 are the authors' for CIFAR-100; ImageNet has weight 0.1 and ends it half-way (`stop`, a share of the
run). h is one linear layer, or with `hidden` (200 in the authors' code) a layer, dropout 0.1, BatchNorm and ReLU before
it. `align` takes out of the gradient g of L its part against the gradient c of all other terms,
g - min(0, g c) c / |c|^2. The authors' code flattens all parameters for it; here those count that both terms reach. It
takes two backward passes.

`centre`, an addition, subtracts each row's mean from the teacher's logits: they are regressed as they are, and some
teachers' drift far from 0.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import full_precision, seeded
from edgekd.distill.methods._logits import not_negative, positive, share
from edgekd.distill.methods._schedules import run_steps
from edgekd.distill.parallel import average
from edgekd.errors import ConfigError


def log_cosh_loss(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """BinaryKL-Norm of each row [N] of logits [N, K], without the factor T^2."""
    u = ((student - teacher) / (2 * temperature)).abs()
    return (u + F.softplus(-2 * u) - math.log(2)).sum(1)


def reached(term: Tensor) -> list[Tensor]:
    """The parameters that `term` depends on, in the order its graph is walked."""
    found, seen, nodes = [], set(), [term.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += [node.variable] if hasattr(node, "variable") else []
            nodes += [below for below, _ in node.next_functions]
    return found


class DHKD(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 2.0,
        hidden: int | None = None,
        align: bool = False,
        stop: float = 1.0,
        centre: bool = False,
    ) -> None:
        super().__init__()
        not_negative(self, weight=weight)
        positive(self, temperature=temperature)
        share(self, stop=stop)
        if hidden is not None and hidden < 1:
            raise ConfigError(f"distill.method dhkd: hidden is {hidden}", "Write its width, or null for none.")
        self.weight, self.temperature, self.hidden = weight, temperature, hidden
        self.align, self.stop, self.centre = align, stop, centre
        self.head: nn.Module = nn.Identity()
        self.steps = 0  # of the run, where it stops early

    def prepare(self, setup: Setup) -> None:
        if self.stop < 1:
            self.steps = run_steps(self, setup, "stop")
        width, classes = setup.student.embedding, setup.num_classes
        with seeded(setup.seed):
            self.head = nn.Linear(self.hidden or width, classes)
            if self.hidden is not None:
                norm = nn.BatchNorm1d(self.hidden)
                self.head = nn.Sequential(nn.Linear(width, self.hidden), nn.Dropout(0.1), norm, nn.ReLU(), self.head)

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None and student.embeddings is not None
        logits = teacher.logits.float()
        if self.centre:
            logits = logits - logits.mean(1, keepdim=True)
        rows = log_cosh_loss(self.head(student.embeddings.float()), logits, self.temperature)
        weight = 0.0 if self.stop < 1 and step >= self.stop * self.steps else self.weight
        return {"dhkd": weight * self.temperature**2 * rows.mean()}

    @property
    def surgery(self) -> bool:
        return self.align

    def backward(self, terms: dict[str, Tensor]) -> None:
        if not self.align or len(terms) == 1:
            super().backward(terms)
            return
        own = terms["dhkd"]
        rest = torch.stack([term for key, term in terms.items() if key != "dhkd"]).sum()
        parameters = list(dict.fromkeys([*reached(own), *reached(rest)]))
        of_own = torch.autograd.grad(own, parameters, retain_graph=True, allow_unused=True)
        of_rest = torch.autograd.grad(rest, parameters, allow_unused=True)
        average([gradient for gradient in (*of_own, *of_rest) if gradient is not None])
        both = [(g, c) for g, c in zip(of_own, of_rest, strict=True) if g is not None and c is not None]
        product = sum(((g * c).sum() for g, c in both), own.new_zeros(()))
        norm = sum((c.square().sum() for _, c in both), own.new_zeros(()))
        against = product.clamp(max=0) / norm.clamp_min(1e-30)
        for parameter, g, c in zip(parameters, of_own, of_rest, strict=True):
            total = g if c is None else c if g is None else g + (1 - against) * c
            parameter.grad = total if parameter.grad is None else parameter.grad + total
