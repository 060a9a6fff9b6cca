"""Fake quantizers for torchao's PT2E flow: the arithmetic of the shipped graph, from vectorised CPU operators.

torch's own kernels are scalar on CPUs (12 ns a value, 20 times what this takes), and its fused observer computes
another symmetric scale than `convert_pt2e` writes into the graph. Here the scale that trains is the scale that ships.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgekd.quantize._torchao import FakeQuantizeBase

# The least weight scale: a dead channel (a zero BatchNorm gamma) would make its int32 bias, in units of the product of
# two scales, overflow.
EPS = 2.0**-16


class _FakeQuantize(FakeQuantizeBase):  # type: ignore[misc]
    """What `convert_pt2e` asks of a fake quantizer; `scale` and `zero_point` are all that the state dict keeps."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, *, dtype: torch.dtype, quant_min: int, quant_max: int, qscheme: torch.qscheme, **_: Any) -> None:
        super().__init__()
        self.dtype, self.quant_min, self.quant_max, self.qscheme = dtype, quant_min, quant_max, qscheme
        self.ch_axis, self.is_dynamic = 0, False
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        return self.scale, self.zero_point

    def fix(self, scale: Tensor, zero_point: Tensor) -> None:
        """Take these: [1] each per tensor, [channels] each per channel."""
        scale = scale.detach().reshape(-1).to(torch.float32)
        if isinstance(self.scale, nn.Parameter):
            self.scale.data = scale
        else:
            self.scale = scale
        self.zero_point = zero_point.detach().reshape(-1).to(torch.int32)


class ActivationFakeQuantize(_FakeQuantize):
    """Observes, is frozen once, and from then on rounds to its range; the scale may be learned."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.options = options
        self.observer: Any = None
        self.frozen = False

    def observe(self, observer: Callable[..., Any]) -> None:
        """From now on, read ranges by this torchao observer."""
        self.observer = observer(**self.options)

    def forward(self, x: Tensor) -> Tensor:
        if not self.frozen:
            if self.observer is not None:
                self.observer(x.detach())
            return x
        low, high = self.quant_min - self._zero, self.quant_max - self._zero
        return cast(Tensor, _Round.apply(x, self.scale, low, high))

    def freeze(self) -> None:
        """Fix the range to what calibration found."""
        self.fix(*self.observer.calculate_qparams())

    def fix(self, scale: Tensor, zero_point: Tensor) -> None:
        super().fix(scale, zero_point)
        self.observer, self.frozen = None, True
        self._zero = int(self.zero_point)


class WeightFakeQuantize(_FakeQuantize):
    """Rounds [C, ...] to symmetric ranges of each output channel: those of the weights as they are, or learned ones."""

    def forward(self, weight: Tensor) -> Tensor:
        if not isinstance(self.scale, nn.Parameter):
            scale = weight.detach().abs().flatten(1).amax(1).div(self.quant_max).clamp_min(EPS)
            self.fix(scale, torch.zeros_like(scale))
        return cast(Tensor, _Round.apply(weight, self.scale, self.quant_min, self.quant_max))


FP8_MAX = 448.0  # E4M3's largest number


def round_fp8(x: Tensor, scale: Tensor) -> Tensor:
    """x rounded to E4M3 in units of `scale`, and back."""
    return (x / scale).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).to(x.dtype) * scale


class Fp8FakeQuantize(ActivationFakeQuantize):
    """The same in E4M3: observers give the scale of an int8 range, whose end becomes E4M3's."""

    def forward(self, x: Tensor) -> Tensor:
        return _through(x, self.scale) if self.frozen else super().forward(x)

    def freeze(self) -> None:
        scale, zero_point = self.observer.calculate_qparams()
        self.fix(scale * (self.quant_max / FP8_MAX), zero_point)


class Fp8WeightFakeQuantize(WeightFakeQuantize):
    """Weights [C, ...] in E4M3, the largest of a channel at its end."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.detach().abs().flatten(1).amax(1).div(FP8_MAX).clamp_min(EPS)
        self.fix(scale, torch.zeros_like(scale))
        return _through(weight, self.scale.view(-1, *[1] * (weight.ndim - 1)))


def _through(x: Tensor, scale: Tensor) -> Tensor:
    """Rounded to E4M3; the gradient passes as if it were not, inside the range."""
    inside = x.clamp(-FP8_MAX * scale, FP8_MAX * scale)
    return inside + (round_fp8(x.detach(), scale) - inside.detach())


def learn_scale(quantizer: _FakeQuantize) -> nn.Parameter:
    """Make the scale of a calibrated quantizer a parameter (LSQ) and return it."""
    parameter = nn.Parameter(quantizer.scale.clone())
    del quantizer._buffers["scale"]
    quantizer.register_parameter("scale", parameter)
    return parameter


class _Round(torch.autograd.Function):
    """clamp(round(x / s), low, high) s for scales s [1] or, by rows of x, [C].

    The gradient passes to x inside the range; to s it is the sum of round(x / s) - x / s inside, and of low or high
    outside, over sqrt(n high) for the n values of a scale (Esser et al. 2020, eq. 3 and section 2.2).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        step = scale if len(scale) == 1 else scale.view(-1, *[1] * (x.ndim - 1))
        ctx.save_for_backward(x, step)
        ctx.bounds, ctx.shape = (float(low), float(high)), scale.shape
        return (x * (1 / step)).round_().clamp_(low, high).mul_(step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, step), (low, high) = grads, ctx.saved_tensors, ctx.bounds
        ratio = x * (1 / step)
        inside = torch.ops.aten.hardtanh_backward(grad, ratio, low - 0.5, high + 0.5)
        if not ctx.needs_input_grad[1]:
            return inside, None, None, None
        # Of round(x / s) s by s: round(x / s), less x / s where the rounding follows x.
        followed = (ratio > low - 0.5) & (ratio < high + 0.5)
        slope = ratio.round().clamp_(low, high).sub_(ratio.mul_(followed)).mul_(grad)
        values = x.numel() // step.numel()
        total = slope.sum() if step.numel() == 1 else slope.flatten(1).sum(1)
        return inside, total.reshape(ctx.shape) / math.sqrt(values * high), None, None
