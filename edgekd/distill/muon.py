"""Muon: momentum SGD whose step on a kernel is orthogonalised (Jordan 2024), and Adam on biases and BatchNorm.

Our own, since torch's and timm's orthogonalise in bf16: on processors that emulate it that took longer than the rest of
the training step, and a network of this size is trained on such processors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: steep at zero, singular values end in 0.7..1.2
STEPS = 5
BETAS = (0.9, 0.95)


def orthogonalise(matrix: Tensor) -> Tensor:
    """U V^T of `matrix` [M, N] = U S V^T, nearly, by Newton-Schulz iteration."""
    a, b, c = QUINTIC
    x: Tensor = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """`lr` is on AdamW's scale: a step on [out, n] is scaled by 0.2 sqrt(max(out, n)) (Liu et al. 2025, eq. 4).

    Groups whose parameters have more than one dimension are orthogonalised; the others take Adam's step. Weight decay
    is decoupled: every step multiplies a weight by 1 - lr * weight_decay.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.0, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                direction = self._orthogonal(parameter, group) if parameter.ndim > 1 else self._adam(parameter, group)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])

    def _orthogonal(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        momentum = state.setdefault("momentum", torch.zeros_like(gradient))
        momentum.lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(momentum, group["momentum"]).flatten(1)  # Nesterov's look ahead
        scale: float = 0.2 * max(direction.shape) ** 0.5
        return orthogonalise(direction).mul_(scale).view_as(parameter)

    def _adam(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        first, second = BETAS
        step: int = state.get("step", 0) + 1
        state["step"] = step
        mean: Tensor = state.setdefault("mean", torch.zeros_like(gradient))
        square: Tensor = state.setdefault("square", torch.zeros_like(gradient))
        mean.lerp_(gradient, 1 - first)
        square.lerp_(gradient.square(), 1 - second)
        return mean / (1 - first**step) / ((square / (1 - second**step)).sqrt() + 1e-8)
