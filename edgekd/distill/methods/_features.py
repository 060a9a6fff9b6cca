"""What feature methods share: taps paired by depth, tokens folded to maps, sizes made equal, float32 throughout."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Outputs, Setup, Side
from edgekd.errors import ConfigError

LEADING = (0, 1, 2, 5)  # no token before the patches; class; class and distillation; class and four registers

Loss = TypeVar("Loss", bound=Callable[..., dict[str, Tensor]])


@dataclass(frozen=True)
class Pair:
    """A tap of the student, the teacher's at the same relative depth, and the channels of both."""

    student: str
    teacher: str
    c_student: int
    c_teacher: int


def teacher_side(setup: Setup, method: str) -> Side:
    """The teacher's dry run. Raises ConfigError where the teacher is no network at hand."""
    if setup.teacher is None:
        raise ConfigError(
            f"distill.method {method} needs the teacher network, and only its stored logits are at hand",
            "Name a teacher of timm, torchvision or file:PATH and set distill.targets to live, or use a logit method.",
        )
    return setup.teacher


def pair_taps(setup: Setup, method: str) -> tuple[Pair, ...]:
    """Every tap of the network that has fewer, with the other's at the nearest relative depth; the last with the last.

    Tap i of n is at depth (i + 1) / n. Raises ConfigError where a side has no tap or tokens that fold to no grid.
    """
    student, teacher = setup.student.shapes, teacher_side(setup, method).shapes
    for side, shapes in (("student", student), ("teacher", teacher)):
        if not shapes:
            raise ConfigError(f"distill.method {method}: the {side} has no tapped features", "Name distill.taps.")
    n = min(len(student), len(teacher))
    names = zip(_spread(list(student), n), _spread(list(teacher), n), strict=True)
    return tuple(Pair(s, t, map_shape(student[s], s)[0], map_shape(teacher[t], t)[0]) for s, t in names)


def _spread(taps: list[str], n: int) -> list[str]:
    """`n` of the taps at relative depths 1/n, 2/n, ... 1."""
    return [taps[round((i + 1) * len(taps) / n) - 1] for i in range(n)]


def leading_tokens(n: int) -> int | None:
    """How many of `n` tokens stand before the patches of a square grid; None where no square is left."""
    return next((k for k in LEADING if k < n and math.isqrt(n - k) ** 2 == n - k), None)


def map_shape(shape: tuple[int, ...], tap: str) -> tuple[int, int, int]:
    """(C, H, W) of a tapped map (C, H, W), or of tokens (N, C) folded to their grid. Raises ConfigError."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    leading = leading_tokens(shape[0]) if len(shape) == 2 else None
    if leading is None:
        raise ConfigError(
            f"distill.taps: {tap} gives features of shape {tuple(shape)}, neither a map nor tokens of a square grid",
            "Tap a layer that gives one, or use a method of embeddings: rkd, pkt, mimic, srrl, crd.",
        )
    side = math.isqrt(shape[0] - leading)
    return shape[1], side, side


def check_positions(setup: Setup, pair: Pair, method: str) -> None:
    """Raises ConfigError where a side's map has one position, for methods that compare positions."""
    for side, tap in ((setup.student, pair.student), (teacher_side(setup, method), pair.teacher)):
        if map_shape(side.shapes[tap], tap)[1:] == (1, 1):
            raise ConfigError(
                f"distill.method {method}: tap {tap} has one position, and {method} compares positions",
                "Name earlier taps in distill.taps, or use mimic.",
            )


def fold(x: Tensor, tap: str) -> Tensor:
    """A map [B, C, H, W] as it is; tokens [B, N, C] without those before the patches, folded to their grid."""
    if x.ndim == 4:
        return x
    _, height, width = map_shape(tuple(x.shape[1:]), tap)
    return x[:, -height * width :].transpose(1, 2).reshape(len(x), -1, height, width)


def paired_maps(pairs: tuple[Pair, ...], student: Outputs, teacher: Outputs | None) -> list[tuple[Tensor, Tensor]]:
    """Student's and teacher's float32 maps [B, C, H, W] of each pair."""
    assert teacher is not None and student.features is not None and teacher.features is not None
    ours, theirs = student.features, teacher.features
    return [(fold(ours[p.student], p.student).float(), fold(theirs[p.teacher], p.teacher).float()) for p in pairs]


def embeddings(student: Outputs, teacher: Outputs | None) -> tuple[Tensor, Tensor]:
    """Student's and teacher's float32 embeddings, [B, D_s] and [B, D_t]."""
    assert teacher is not None and student.embeddings is not None and teacher.embeddings is not None
    return student.embeddings.float(), teacher.embeddings.float()


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps [B, C, H, W], average-pooled to the smaller height and the smaller width of the two."""
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    pooled = [x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (a, b)]
    return pooled[0], pooled[1]


def frozen(module: nn.Module) -> tuple[nn.Module]:
    """A copy that does not train, in a tuple: there it is no submodule, so neither trained nor stored."""
    return (deepcopy(module).eval().requires_grad_(False),)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Adapters drawn from `seed` alone: what was drawn before does not enter, and nothing is drawn from the outside."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def full_precision(loss: Loss) -> Loss:
    """`loss` with autocast off: Grams, squared distances and sums over maps lose too much in bf16.

    Not for a method whose adapters convolve whole maps, which take twice as long so: it casts what they give instead.
    """

    @functools.wraps(loss)
    def run(self: Any, student: Outputs, *rest: Any, **named: Any) -> dict[str, Tensor]:
        with torch.autocast(student.logits.device.type, enabled=False):
            return loss(self, student, *rest, **named)

    return cast(Loss, run)
