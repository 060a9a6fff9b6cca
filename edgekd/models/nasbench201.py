"""NAS-Bench-201 networks (Dong and Yang 2020, section 2): three stages of five equal cells, widths 16, 32, 64.

A cell has four nodes; every node is the sum of one operation on each node before it. `arch` writes the operations as
the benchmark does: |op~0|+|op~0|op~1|+|op~0|op~1|op~2|.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import ModelError

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
WIDTHS, CELLS = (16, 32, 64), 5


def parse(arch: str) -> tuple[str, ...]:
    """The operations on EDGES. Raises ModelError."""
    names = tuple(re.findall(r"(\w+)~\d", arch))
    if write(names) != arch or not set(names) <= set(OPERATIONS):
        raise ModelError(
            f"{arch!r} is not a NAS-Bench-201 cell", f"Write {write(OPERATIONS[3:4] * 6)} with {', '.join(OPERATIONS)}."
        )
    return names


def write(operations: tuple[str, ...]) -> str:
    """What `parse` reads."""
    nodes = [
        "|" + "".join(f"{op}~{a}|" for (a, b), op in zip(EDGES, operations, strict=False) if b == node)
        for node in (1, 2, 3)
    ]
    return "+".join(nodes)


class Cell(nn.Module):
    """[B, C, H, W] -> [B, C, H, W]. Edges that do not lead from the input to the output are not built."""

    def __init__(self, operations: tuple[str, ...], width: int) -> None:
        super().__init__()
        self.edges = live_edges(operations)
        make: dict[str, Callable[[], nn.Module]] = {
            "skip_connect": nn.Identity,
            "nor_conv_1x1": partial(_conv, width, width, 1),
            "nor_conv_3x3": partial(_conv, width, width, 3),
            "avg_pool_3x3": partial(nn.AvgPool2d, 3, stride=1, padding=1, count_include_pad=False),
        }
        self.operations = nn.ModuleList(make[operations[EDGES.index(edge)]]() for edge in self.edges)

    def forward(self, x: Tensor) -> Tensor:
        nodes: dict[int, Tensor] = {0: x}
        for (a, b), operation in zip(self.edges, self.operations, strict=True):
            value = operation(nodes[a])
            nodes[b] = nodes[b] + value if b in nodes else value
        return nodes[3] if 3 in nodes else torch.zeros_like(x)


def live_edges(operations: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """The edges on a path from node 0 to node 3: what a compiler leaves of the cell."""
    used = [edge for edge, op in zip(EDGES, operations, strict=True) if op != "none"]
    reached, needed = {0}, {3}
    for a, b in used:  # EDGES is in topological order
        reached |= {b} if a in reached else set()
    for a, b in reversed(used):
        needed |= {a} if b in needed else set()
    return tuple((a, b) for a, b in used if a in reached and b in needed)


class Reduction(nn.Module):
    """A residual block at stride 2: [B, C, H, W] -> [B, 2C, H/2, W/2]."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_a, self.conv_b = _conv(c_in, c_out, 3, stride=2), _conv(c_out, c_out, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.conv_b(self.conv_a(x))
        return out


class NasBench201(nn.Module):
    """Input [B, in_channels, H, W], output logits [B, num_classes]."""

    def __init__(self, num_classes: int, arch: str, in_channels: int = 3) -> None:
        super().__init__()
        operations = parse(arch)
        self.stem = nn.Sequential(nn.Conv2d(in_channels, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]))
        blocks: list[nn.Module] = []
        for stage, width in enumerate(WIDTHS):
            blocks += [Reduction(WIDTHS[stage - 1], width)] if stage else []
            blocks += [Cell(operations, width) for _ in range(CELLS)]
        self.body = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(WIDTHS[-1])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTHS[-1], num_classes)

    @property
    def blocks(self) -> list[nn.Module]:
        """Cells and reductions in order."""
        return list(self.body)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map [B, 64, H/4, W/4], before pooling."""
        return F.relu(self.bn(self.body(self.stem(x))))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.flatten(self.avgpool(self.forward_features(x)), 1))
        return logits


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(c_out))
