"""Networks as lists of operators: what a search counts and times without building anything.

An operator is what a deployed graph runs: BatchNorm is folded, ReLU fused. `edgekd.profile.graphs` writes the graphs.
Maps are [c, h, w] and tokens [n, c], always without the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

Shape = tuple[int, ...]


class Operator:
    """Something that takes time on a device; two that are equal take the same."""

    @property
    def family(self) -> str:
        """What a runtime has one kernel for, whatever the size."""
        return type(self).__name__

    @property
    def shape(self) -> Shape:
        """What comes in: every input, where there are several."""
        raise NotImplementedError

    @property
    def out(self) -> Shape:
        return self.shape

    @property
    def params(self) -> int:
        """Trained numbers, before BatchNorm is folded."""
        return 0

    @property
    def weights(self) -> int:
        """Numbers of its kernels and matrices."""
        return 0

    @property
    def traffic(self) -> int:
        """Numbers it reads and writes at least, a byte each in INT8: what comes in, what goes out, its weights."""
        return math.prod(self.shape) + math.prod(self.out) + self.weights

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products, for one image."""
        return 0

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the INT8 tensors that its kernels write."""
        return ()


class _Map(Operator):
    c: int
    h: int
    w: int

    @property
    def shape(self) -> Shape:
        return self.c, self.h, self.w


class _Pair(Operator):
    @property
    def traffic(self) -> int:
        return 3 * math.prod(self.shape)


@dataclass(frozen=True)
class Input(_Map):
    """Float images [c, h, w] arrive and are quantized; the cost of a call itself is counted here, once a network."""

    c: int
    h: int
    w: int


PACK = 4  # input channels that ONNX Runtime's INT8 kernels multiply at once
LEAST_OUT = 16  # output channels of those that read the image where it lies


def direct_channels(c_in: int, c_out: int, kernel: int, stride: int, groups: int = 1) -> int:
    """Channels up to which the `ort` scheme fills an image with zeros ahead of its first convolution.

    With three channels ONNX Runtime unrolls every window (im2col) before it multiplies; with four its kernels read the
    image directly. Where windows do not overlap there is little to unroll, and below `LEAST_OUT` output channels no
    such kernel.
    """
    filled = -(-c_in // PACK) * PACK
    return filled if groups == 1 and kernel > stride and c_out >= LEAST_OUT else c_in


@dataclass(frozen=True)
class Conv(Operator):
    """[c_in, h, w] -> [c_out, ceil(h/stride), ceil(w/stride)], padding kernel // 2, BatchNorm folded in.

    `affine` counts the trained numbers beside the kernel for each output channel: two of a BatchNorm, one of a bias, or
    none. They do not change the time.
    """

    c_in: int
    c_out: int
    kernel: int
    stride: int
    h: int
    w: int
    relu: bool = True
    groups: int = 1
    affine: int = field(default=2, repr=False, compare=False)

    @property
    def family(self) -> str:
        return f"Conv {self.kernel}x{self.kernel}" + (" grouped" if self.groups > 1 else "")

    @property
    def shape(self) -> Shape:
        return self.c_in, self.h, self.w

    @property
    def out(self) -> tuple[int, int, int]:
        return self.c_out, -(-self.h // self.stride), -(-self.w // self.stride)

    @property
    def weights(self) -> int:
        return self.c_in // self.groups * self.c_out * self.kernel**2

    @property
    def params(self) -> int:
        return self.weights + self.affine * self.c_out

    @property
    def macs(self) -> int:
        _, h, w = self.out
        return self.weights * h * w

    @property
    def channels(self) -> tuple[int, ...]:
        return (self.c_out,)


@dataclass(frozen=True)
class Add(_Pair, _Map):
    """Two maps [c, h, w], added, then ReLU."""

    c: int
    h: int
    w: int


@dataclass(frozen=True)
class Sum(_Pair):
    """Two tensors of one size, added, without ReLU."""

    size: Shape

    @property
    def shape(self) -> Shape:
        return self.size


@dataclass(frozen=True)
class Relu(_Map):
    """ReLU apart from what computed [c, h, w], because that is used without it too."""

    c: int
    h: int
    w: int


@dataclass(frozen=True)
class Pool(_Map):
    """The maximum or mean of every window; the mean does not count padding. Sizes are rounded down."""

    kind: str  # max | avg
    c: int
    kernel: int
    stride: int
    padding: int
    h: int
    w: int

    @property
    def family(self) -> str:
        return f"Pool {self.kind}"

    @property
    def out(self) -> tuple[int, int, int]:
        h, w = ((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in (self.h, self.w))
        return self.c, h, w


@dataclass(frozen=True)
class SqueezeExcite(_Map):
    """x * sigmoid(W2 relu(W1 mean(x))) with `hidden` channels between: the gate multiplies in float."""

    c: int
    hidden: int
    h: int
    w: int

    @property
    def params(self) -> int:
        return self.weights + self.hidden + self.c

    @property
    def weights(self) -> int:
        return 2 * self.c * self.hidden

    @property
    def macs(self) -> int:
        return self.weights

    @property
    def channels(self) -> tuple[int, ...]:
        return self.hidden, self.c


@dataclass(frozen=True)
class Head(_Map):
    """[c, h, w] -> mean over h and w -> linear -> `classes` logits, in float at the end."""

    c: int
    h: int
    w: int
    classes: int

    @property
    def out(self) -> Shape:
        return (self.classes,)

    @property
    def params(self) -> int:
        return self.weights + self.classes

    @property
    def weights(self) -> int:
        return self.c * self.classes

    @property
    def macs(self) -> int:
        return self.weights


@dataclass(frozen=True)
class NormHead(Head):
    """A `Head` behind a BatchNorm and ReLU that no convolution can fold in: they run in float."""

    @property
    def params(self) -> int:
        return 2 * self.c + super().params


class Layer(NamedTuple):
    """An operator, and the places in the network of those whose outputs it takes."""

    op: Operator
    inputs: tuple[int, ...]


class Network:
    """Layers in the order they run; the first takes in the images, the last gives the logits."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        self.input_shape = input_shape
        self.layers = [Layer(Input(*input_shape), ())]

    @property
    def last(self) -> int:
        """The place of the newest layer."""
        return len(self.layers) - 1

    def out(self, place: int = -1) -> Shape:
        """What the layer at `place` gives, by default the newest."""
        return self.layers[place].op.out

    def add(self, op: Operator, *inputs: int) -> int:
        """Append an operator, by default on the newest layer; returns its place."""
        self.layers.append(Layer(op, inputs or (self.last,)))
        return self.last

    def conv(
        self,
        c_out: int,
        kernel: int,
        stride: int = 1,
        *,
        on: int | None = None,
        relu: bool = True,
        groups: int = 1,
        affine: int = 2,
    ) -> int:
        """Append a convolution on the map of layer `on`, by default the newest; returns its place."""
        place = self.last if on is None else on
        c, h, w = self.out(place)
        return self.add(Conv(c, c_out, kernel, stride, h, w, relu, groups, affine), place)

    def repeat(self, times: int, append: Callable[[Network], None]) -> None:
        """Append a block `times` times in a row; it takes the newest layer and keeps its shape. Written once."""
        if times > 0:
            start = len(self)
            append(self)
            block = self.layers[start:]
            for shift in (len(block) * done for done in range(1, times)):
                self.layers += [Layer(op, tuple([place + shift for place in inputs])) for op, inputs in block]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def operators(network: Iterable[Layer]) -> list[Operator]:
    """The operators a network runs, in order."""
    return [layer.op for layer in network]
