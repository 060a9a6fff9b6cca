"""Operators of vision transformers: tokens [n, c], the class token first."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.profile.operators import Conv, Operator, Shape


class _Tokens(Operator):
    n: int
    c: int

    @property
    def shape(self) -> Shape:
        return self.n, self.c


@dataclass(frozen=True)
class Patches(Operator):
    """[c_in, h, w] -> tokens [1 + n, c_out]: an unpadded convolution, a class token in front, and learned positions.

    `placed` says whether the class token has a position too.
    """

    c_in: int
    c_out: int
    kernel: int
    stride: int
    h: int
    w: int
    placed: bool = True

    @property
    def shape(self) -> Shape:
        return self.c_in, self.h, self.w

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return (self.h - self.kernel) // self.stride + 1, (self.w - self.kernel) // self.stride + 1

    @property
    def out(self) -> Shape:
        return 1 + self.grid[0] * self.grid[1], self.c_out

    @property
    def weights(self) -> int:
        return self.c_in * self.c_out * self.kernel**2

    @property
    def params(self) -> int:
        positions = self.out[0] - (not self.placed)
        return self.weights + (2 + positions) * self.c_out  # with a bias and the class token

    @property
    def macs(self) -> int:
        return self.weights * self.grid[0] * self.grid[1]

    @property
    def channels(self) -> tuple[int, ...]:
        return (self.c_out,)


@dataclass(frozen=True)
class Linear(Operator):
    """Tokens [n, c_in] -> [n, c_out]."""

    n: int
    c_in: int
    c_out: int

    @property
    def shape(self) -> Shape:
        return self.n, self.c_in

    @property
    def out(self) -> Shape:
        return self.n, self.c_out

    @property
    def params(self) -> int:
        return self.weights + self.c_out

    @property
    def weights(self) -> int:
        return self.c_in * self.c_out

    @property
    def macs(self) -> int:
        return self.n * self.weights

    @property
    def channels(self) -> tuple[int, ...]:
        return (self.c_out,)


@dataclass(frozen=True)
class LayerNorm(_Tokens):
    """Tokens [n, c], each normalised; in float."""

    n: int
    c: int

    @property
    def params(self) -> int:
        return 2 * self.c


@dataclass(frozen=True)
class Gelu(_Tokens):
    """x * Phi(x) of every value; in float."""

    n: int
    c: int


@dataclass(frozen=True)
class Attention(Operator):
    """Queries, keys and values [n, 3 * heads * dim] -> softmax(q k^T / sqrt(dim)) v [n, heads * dim]; in float."""

    n: int
    heads: int
    dim: int

    @property
    def shape(self) -> Shape:
        return self.n, 3 * self.heads * self.dim

    @property
    def out(self) -> Shape:
        return self.n, self.heads * self.dim

    @property
    def macs(self) -> int:
        return 2 * self.n**2 * self.heads * self.dim


@dataclass(frozen=True)
class TokenPool(Operator):
    """Tokens [1 + h * w, c_in] -> [1 + ceil(h/2) * ceil(w/2), c_out].

    A 3x3 convolution of stride 2 with a group for each input channel on the grid, and a linear layer on the token.
    """

    c_in: int
    c_out: int
    h: int
    w: int

    @property
    def conv(self) -> Conv:
        return Conv(self.c_in, self.c_out, 3, 2, self.h, self.w, relu=False, groups=self.c_in, affine=1)

    @property
    def linear(self) -> Linear:
        return Linear(1, self.c_in, self.c_out)

    @property
    def shape(self) -> Shape:
        return 1 + self.h * self.w, self.c_in

    @property
    def out(self) -> Shape:
        c, h, w = self.conv.out
        return 1 + h * w, c

    @property
    def params(self) -> int:
        return self.conv.params + self.linear.params

    @property
    def weights(self) -> int:
        return self.conv.weights + self.linear.weights

    @property
    def macs(self) -> int:
        return self.conv.macs + self.linear.macs

    @property
    def channels(self) -> tuple[int, ...]:
        return (self.c_out,)


@dataclass(frozen=True)
class TokenHead(_Tokens):
    """Tokens [n, c] -> LayerNorm -> the first one -> linear -> `classes` logits."""

    n: int
    c: int
    classes: int

    @property
    def out(self) -> Shape:
        return (self.classes,)

    @property
    def params(self) -> int:
        return 2 * self.c + self.weights + self.classes

    @property
    def weights(self) -> int:
        return self.c * self.classes

    @property
    def macs(self) -> int:
        return self.weights
