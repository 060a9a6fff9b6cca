"""TRG: tokens of the student relate to one another as the teacher's do (Zhang et al. 2023, arXiv 2306.12442).

Tokens are a transformer's patches or the cells of a CNN's last map, the larger of two pooled to the smaller:

    inner    of one image: R = softmax(F F^T / sqrt D), F [N, D] its tokens; mean row of |R^t - R^s|^2
    local    of M tokens of the batch: KL between the two distributions of a token i over its k nearest in the teacher,
             in proportion to A_ij = exp(-|x_i - x_j|^2 / (2 sigma)), x of unit length
    global   of the same M: InfoNCE, which of the teacher's tokens is a student's, projected, at a falling temperature

    L = inner_weight inner + local_weight local + global_weight global, beside CE and a KD of choice: `[kd, trg]`.

A reconstruction: the abstract and a detailed note were read, not the paper, and no code is published. The three terms
are the note's. Its local one takes a softmax of A, zeros and all; here non-neighbours are left out and A is divided by
its row's sum. The direction of that KL, teacher first, the means, unit length and all numbers are choices made here.
Channels need not agree: the global term alone has an adapter, dropped at export. Tokens are drawn by (seed, step,
sample).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._counter import uniform
from edgekd.distill.methods._features import (
    Pair,
    check_positions,
    full_precision,
    pair_taps,
    paired_maps,
    same_size,
    seeded,
)
from edgekd.distill.methods._logits import kl, not_negative, positive
from edgekd.distill.methods._schedules import run_steps
from edgekd.errors import ConfigError


def inner_relations(x: Tensor) -> Tensor:
    """Tokens [B, N, D] -> R [B, N, N], rows sum to 1."""
    return (x @ x.transpose(1, 2) / math.sqrt(x.shape[2])).softmax(2)


def local_loss(student: Tensor, teacher: Tensor, k: int, sigma: float) -> Tensor:
    """Mean KL over the teacher's k nearest neighbours, of tokens [M, D_s] and [M, D_t] of unit length."""
    near = (teacher @ teacher.T).fill_diagonal_(-torch.inf).topk(min(k, len(teacher) - 1), 1).indices
    ours, theirs = ((x @ x.T).gather(1, near) / sigma for x in (student, teacher))  # |x - y|^2 / 2 = 1 - x y
    return kl(ours.log_softmax(1), theirs.log_softmax(1)).mean()


def global_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean InfoNCE of tokens [M, D] of unit length on both sides."""
    return F.cross_entropy(student @ teacher.T / temperature, torch.arange(len(student), device=student.device))


class TRG(Method):
    minimum: ClassVar[float | None] = None  # InfoNCE's depends on the tokens

    def __init__(
        self,
        inner_weight: float = 1.0,
        local_weight: float = 1.0,
        global_weight: float = 0.1,
        tokens: int = 1024,
        k: int = 8,
        sigma: float = 0.1,
        temperature: float = 0.5,
        temperature_end: float = 0.1,
    ) -> None:
        super().__init__()
        not_negative(self, inner_weight=inner_weight, local_weight=local_weight, global_weight=global_weight)
        positive(self, tokens=tokens, k=k, sigma=sigma, temperature=temperature, temperature_end=temperature_end)
        if tokens < 2:
            raise ConfigError(f"distill.method trg: tokens is {tokens}, and one has no neighbour", "Write 2 or more.")
        self.weights = (inner_weight, local_weight, global_weight)
        self.tokens, self.k, self.sigma = tokens, k, sigma
        self.temperature, self.temperature_end = temperature, temperature_end
        self.pairs: tuple[Pair, ...] = ()
        self.project: nn.Module = nn.Identity()
        self.steps = self.seed = 0

    def prepare(self, setup: Setup) -> None:
        self.pairs, self.seed = pair_taps(setup, "trg")[-1:], setup.seed
        check_positions(setup, self.pairs[0], "trg")
        self.steps = run_steps(self, setup, "temperature")
        with seeded(setup.seed):
            self.project = nn.Linear(self.pairs[0].c_student, self.pairs[0].c_teacher)

    def drawn(self, batch: Batch, cells: int, step: int, device: torch.device) -> Tensor:
        """Which of the batch's tokens, flattened to [B * cells], enter the local and the global graph: [M]."""
        draw = uniform(self.seed, step, torch.from_numpy(batch.samples).to(device), cells).flatten()
        return draw.topk(min(self.tokens, len(draw))).indices

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        maps = same_size(*paired_maps(self.pairs, student, teacher)[0])
        ours, theirs = (x.flatten(2).transpose(1, 2) for x in maps)  # [B, N, D]
        inner = (inner_relations(theirs) - inner_relations(ours)).square().sum(2).mean()
        chosen = self.drawn(batch, ours.shape[1], step, ours.device)
        ours, theirs = (x.flatten(0, 1)[chosen] for x in (ours, theirs))
        unit = F.normalize(theirs)
        temperature = self.temperature + (self.temperature_end - self.temperature) * step / self.steps
        terms = (
            inner,
            local_loss(F.normalize(ours), unit, self.k, self.sigma),
            global_loss(F.normalize(self.project(ours)), unit, temperature),
        )
        names = ("trg_inner", "trg_local", "trg_global")
        return {name: weight * term for name, weight, term in zip(names, self.weights, terms, strict=True)}
