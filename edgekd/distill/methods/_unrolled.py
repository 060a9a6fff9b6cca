"""What a method's own networks learn beside the student: a virtual step and what depends on it, and their gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import grad, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

Weights = Mapping[str, Tensor]
LENGTH = 0.1  # of a gradient, whatever the loss is scaled by: steps of SGD are then as long as its learning rate says


def hypergradient(
    inner: Callable[[Weights], Tensor],
    slope: Callable[[Weights], Tensor],
    outer: Callable[[Weights], Tensor],
    weights: dict[str, Tensor],
    rate: float,
) -> Tensor:
    """[N]: the derivative of outer(w') with respect to each a_i, w' = w - rate d inner(w) / dw.

    `inner` is linear in a, and `slope(w)` [N] its derivative with respect to a. So d w' / d a_i = -rate d slope_i / dw,
    and what is asked for is -rate times the derivative of slope along the gradient of outer at w': forward-mode
    differentiation gives it for all i at once, exactly, and needs no second derivatives of the network's operators.
    """
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward mode
        warnings.simplefilter("ignore", FutureWarning)  # of torch about how torch has written its forward-mode rules
        warnings.simplefilter("ignore", DeprecationWarning)
        moved = {name: weights[name] - rate * g for name, g in grad(inner)(weights).items()}
        along: Tensor = jvp(slope, (weights,), (grad(outer)(moved),))[1]
    return -rate * along


def follow(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
    """Add `gradients`, scaled together to `LENGTH`, to the parameters' `grad`."""
    scale = LENGTH / torch.cat([gradient.flatten() for gradient in gradients]).norm().clamp_min(1e-20)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        added = scale * gradient
        parameter.grad = added if parameter.grad is None else parameter.grad + added
