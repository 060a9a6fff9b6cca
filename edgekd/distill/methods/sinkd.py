"""SinKD: the least work to turn the student's batch of predictions into the teacher's.

Cui et al. 2024, arXiv 2402.17110. With p_i and q_j the softmax at temperature T of the student's row i and of the
teacher's row j, W_ij = |p_i - q_j|_1 and K = exp(-W / epsilon), whose rows and columns are divided by their sums in
turn, `iterations` times, into the plan P,

    L = weight sum_ij P_ij W_ij / B.

Images are matched across the batch, each to all, and the gradient flows through P. The iteration runs on logarithms:
K underflows in half precision. `method: [kd, sinkd]` is the authors' sum with KD and cross-entropy.

T = 2, epsilon = 0.1 and 20 iterations as in the authors' code, whose sum over the batch had the weights 0.8 and 0.001
at B = 16: 0.0128 of the mean here. That is little, for language models; no figure for images is known, where the
weight has to be found. `cost` l2 takes Euclidean distances. `tolerance` ends the iteration once every row's sum is so
near to 1; 0 never does.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from edgekd.distill.methods._base import Batch, Method, Outputs
from edgekd.distill.methods._features import full_precision
from edgekd.distill.methods._logits import not_negative, positive
from edgekd.errors import ConfigError

NORMS = {"l1": 1.0, "l2": 2.0}


def distances(student: Tensor, teacher: Tensor, temperature: float = 2.0, cost: str = "l1") -> Tensor:
    """W [B, B] between the rows of logits [B, K]."""
    return torch.cdist((student / temperature).softmax(1), (teacher / temperature).softmax(1), p=NORMS[cost])


def plan(work: Tensor, epsilon: float = 0.1, iterations: int = 20, tolerance: float = 0.0) -> Tensor:
    """P [B, B] of the distances W; its columns sum to 1, its rows the nearer to it the longer it runs."""
    log_p = -work / epsilon
    for _ in range(iterations):
        log_p = log_p - log_p.logsumexp(1, keepdim=True)
        log_p = log_p - log_p.logsumexp(0, keepdim=True)
        if tolerance and (log_p.detach().logsumexp(1).exp() - 1).abs().max() < tolerance:
            break
    return log_p.exp()


class SinKD(Method):
    """`cost` is `l1` or `l2`."""

    minimum: ClassVar[float | None] = None  # the plan spreads by epsilon, so equal batches have work left

    def __init__(
        self,
        weight: float = 0.0128,
        temperature: float = 2.0,
        epsilon: float = 0.1,
        iterations: int = 20,
        tolerance: float = 0.0,
        cost: str = "l1",
    ) -> None:
        super().__init__()
        positive(self, temperature=temperature, epsilon=epsilon, iterations=iterations)
        not_negative(self, weight=weight, tolerance=tolerance)
        if cost not in NORMS:
            raise ConfigError(f"distill.method sinkd: cost is {cost!r}", "Write l1 or l2.")
        self.weight, self.temperature, self.cost = weight, temperature, cost
        self.epsilon, self.iterations, self.tolerance = epsilon, iterations, tolerance

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None
        work = distances(student.logits.float(), teacher.logits.float(), self.temperature, self.cost)
        moved = plan(work, self.epsilon, self.iterations, self.tolerance)
        return {"sinkd": self.weight * (moved * work).sum() / len(work)}
