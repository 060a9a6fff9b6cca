"""OFA-KD: every stage of the student gets an exit to logits, and every exit learns the teacher's.

Hao et al. 2023, arXiv 2310.19444. With y the label, p the teacher's and q an exit's softmax at temperature T,
L_ofa(q) = -mean [ ((1 + p_y)^eps - 1) log q_y + sum over c != y of p_c^eps log q_c ], the adaptive target
enhancement; L = L_ofa(student) + sum over exits of L_ofa(exit). The student's own exit is a term of its own.

Features never meet, so any pair of families works and no teacher feature is needed. An exit of a map halves it by
separable convolutions once for each stage that follows, pools it and classifies; an exit of tokens has as many
transformer blocks, 4 heads, and reads the class token, or the mean where there is none. eps = T = 1 are the authors'
for CIFAR-100. They merge the patches of hierarchical transformers before the blocks; here tokens keep their number.
Their exits are as wide as the wider of the two networks' embeddings, here as the student's.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import leading_tokens, seeded
from edgekd.errors import ConfigError
from edgekd.models.vit import Block

HEADS = 4


def ofa_loss(student: Tensor, teacher: Tensor, labels: Tensor, eps: float = 1.0, temperature: float = 1.0) -> Tensor:
    """Mean over the rows of logits [B, K]; at eps = 1 the cross-entropy with the teacher's softmax."""
    target = F.one_hot(labels, student.shape[1]).to(student.dtype)
    enhanced = ((teacher / temperature).softmax(1) + target) ** eps - target
    return -(enhanced * F.log_softmax(student / temperature, 1)).sum(1).mean()


class TokenExit(nn.Module):
    """[B, N, C] -> logits [B, K] by transformer blocks, then the class token or the mean."""

    def __init__(self, width: int, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, HEADS, max(1, width // HEADS), 4.0) for _ in range(blocks)))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(x)
        logits: Tensor = self.head(y[:, 0] if leading_tokens(x.shape[1]) else y.mean(1))
        return logits


class OneForAll(Method):
    minimum: ClassVar[float | None] = None

    def __init__(self, exits: float = 1.0, logits: float = 1.0, eps: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        self.exits, self.logits, self.eps, self.temperature = exits, logits, eps, temperature
        self.branches = nn.ModuleList()
        self.taps: tuple[str, ...] = ()

    def prepare(self, setup: Setup) -> None:
        self.taps = tuple(setup.student.shapes)
        if not self.taps:
            raise ConfigError("distill.method ofakd: the student has no tapped features", "Name distill.taps.")
        width = setup.student.embedding
        with seeded(setup.seed):
            self.branches = nn.ModuleList(
                TokenExit(shape[1], max(1, after), setup.num_classes)
                if len(shape) == 2
                else _map_exit(shape[0], after, width, setup.num_classes)
                for after, shape in zip(reversed(range(len(self.taps))), setup.student.shapes.values(), strict=True)
            )

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None and student.features is not None
        features = [student.features[tap].float() for tap in self.taps]
        outputs = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        ours, *exits = (
            ofa_loss(z.float(), teacher.logits.float(), batch.labels, self.eps, self.temperature)
            for z in (student.logits, *outputs)
        )
        return {"ofakd_logits": self.logits * ours, "ofakd_exits": self.exits * torch.stack(exits).sum()}


def _map_exit(channels: int, halvings: int, width: int, num_classes: int) -> nn.Module:
    """[B, C, H, W] -> logits; channels double with each halving, the last one gives `width`."""
    layers: list[nn.Module] = [] if halvings else [nn.Conv2d(channels, width, 1)]
    for i in range(halvings):
        c_out = width if i == halvings - 1 else 2 * channels
        layers += [*_separable(channels, channels, 2), *_separable(channels, c_out, 1)]
        channels = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


def _separable(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in, bias=False),
        nn.Conv2d(c_in, c_out, 1, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(),
    ]
