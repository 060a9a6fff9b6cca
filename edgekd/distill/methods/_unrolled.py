"""A virtual step, and how what comes of it depends on the weights of what made it: bilevel optimisation in one step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from torch import Tensor
from torch.func import grad, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

Weights = Mapping[str, Tensor]


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
