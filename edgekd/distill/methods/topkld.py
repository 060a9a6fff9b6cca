"""TopKLD: cover the classes that the teacher puts first, and stay off the others (Ding et al. 2025, arXiv 2501.06218).

With p the teacher's and q the student's softmax at temperature T, and top the k classes of largest p,

    L = CE + T^2 [ sum over top of (p log(p / q) - p + q) + sum over the others of (q log(q / p) - q + p) ], batch mean:

forward KL where a sampler looks, which punishes mass that is missing, and reverse KL in the tail, which punishes mass
that is too much. The terms beside the logarithms make generalised KLs of the two sums: without them either could be
negative. Each is 0 only where p = q.

A reconstruction: the paper's abstract and reviews tell of the balance between the two KLs and of top-k sampling; its
formula, k and figures could not be read, and the mass terms are added here. It was made to train low-bit image
generators from their own full-precision selves, without labels: `ce_weight` 0, T = 1. k = 5 is a choice for
classification; where k reaches the number of classes it is the plain forward KL.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.catalog import MethodRow
from edgekd.distill.methods._base import Batch
from edgekd.distill.methods._logits import LogitMethod, not_negative, positive
from edgekd.errors import ConfigError


def topkld_parts(student: Tensor, teacher: Tensor, k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(forward, reverse) of each row [N] of logits [N, K], without the factor T^2; neither is negative."""
    log_q, log_p = (F.log_softmax(x / temperature, 1) for x in (student, teacher))
    q, p, gap = log_q.exp(), log_p.exp(), log_p - log_q
    top = torch.zeros_like(p, dtype=torch.bool).scatter(1, p.topk(min(k, p.shape[1]), 1).indices, True)
    forward, reverse = p * gap - p + q, p - q - q * gap
    return (forward * top).sum(1), (reverse * ~top).sum(1)


class TopKLD(LogitMethod):
    def __init__(
        self, k: int = 5, temperature: float = 1.0, ce_weight: float = 1.0, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(label_smoothing)
        positive(self, temperature=temperature)
        not_negative(self, ce_weight=ce_weight)
        if k < 1:
            raise ConfigError(f"distill.method topkld: k is {k}", "Write 1 or a number above it.")
        self.k, self.temperature, self.ce_weight = k, temperature, ce_weight

    def row(self, row: MethodRow) -> MethodRow:
        return replace(row, top_logits=self.k)

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        forward, reverse = topkld_parts(student, teacher, self.k, self.temperature)
        scale = self.temperature**2
        return {"forward": scale * forward.mean(), "reverse": scale * reverse.mean()}
