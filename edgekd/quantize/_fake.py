"""Fake quantizers for torchao's PT2E flow: the arithmetic of the shipped graph, from vectorised CPU operators.

torch's own kernels are scalar on CPUs (12 ns a value, 20 times what this takes), and its fused observer computes
another symmetric scale than `convert_pt2e` writes into the graph. Here the scale that trains is the scale that ships.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from edgekd.quantize._torchao import FakeQuantizeBase, HistogramObserver

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
        self.scale = scale.detach().reshape(-1).to(torch.float32)
        self.zero_point = zero_point.detach().reshape(-1).to(torch.int32)


class ActivationFakeQuantize(_FakeQuantize):
    """Calibrates, is frozen once, and from then on rounds to a fixed range; gradients pass inside the range."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.observer: Any = HistogramObserver(**options)
        self.constants = (1.0, 1.0, 0.0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        if self.observer is not None:
            self.observer(x.detach())
            return x
        return cast(Tensor, _RoundInRange.apply(x, *self.constants))

    def freeze(self) -> None:
        """Fix the range to what calibration found."""
        self.fix(*self.observer.calculate_qparams())

    def fix(self, scale: Tensor, zero_point: Tensor) -> None:
        super().fix(scale, zero_point)
        self.observer = None
        zero = int(self.zero_point)
        inverse = float(1 / self.scale)  # in float32, as quantize_per_tensor has it
        self.constants = inverse, float(self.scale), float(self.quant_min - zero), float(self.quant_max - zero)


class WeightFakeQuantize(_FakeQuantize):
    """Rounds to the symmetric range of each output channel of the weights as they are now, [C, ...]."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.detach().abs().flatten(1).amax(1).div(self.quant_max).clamp_min(EPS)
        self.fix(scale, torch.zeros_like(scale))
        return cast(Tensor, _Round.apply(weight, scale.view(-1, *[1] * (weight.ndim - 1))))


class _RoundInRange(torch.autograd.Function):
    """clamp(round(x / scale), low, high) * scale with the straight-through gradient inside the range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inverse: float, scale: float, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = (low - 0.5) * scale, (high + 0.5) * scale
        return (x * inverse).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], x, *ctx.bounds), None, None, None, None


class _Round(torch.autograd.Function):
    """round(x / scale) * scale with the gradient passed straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        return (x * (1 / scale)).round_().mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None
