"""Scorer `synflow`: log of the sum of W * dR/dW with R the output of the network of absolute weights on ones.

Tanaka et al. 2020, eq. 3. No data; normalisations are the identity (Abdelfattah et al. 2021), since statistics would
cancel what the score measures. The paper's networks are piecewise linear. In a transformer softmax is taken as uniform,
so that attention averages the tokens: its derivative is neither positive nor bounded, and values are what flows on. In
double: the product of all layers leaves float's range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from edgekd.search.scorers._network import NetworkScorer, kernels


class Synflow(NetworkScorer):
    def measure(self, model: nn.Module) -> float:
        model.eval().double()  # a fresh BatchNorm's running statistics are mean 0 and variance 1
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_()
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.LayerNorm | nn.GroupNorm):
                    setattr(module, name, nn.Identity())
        weights = kernels(model)
        ones = torch.ones(1, *self.task.images.shape[1:], dtype=torch.float64)
        with _UniformSoftmax():
            gradients = torch.autograd.grad(model(ones).sum(), weights, materialize_grads=True)
        return math.log(sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True)))


class _UniformSoftmax(TorchFunctionMode):
    """Softmax over n as 1 / n, by itself and inside attention."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, _, value = args[:3]
            return value.mean(-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1])
        if func in (F.softmax, torch.softmax, Tensor.softmax):
            x, dim = args[0], args[1] if len(args) > 1 else given["dim"]
            return torch.full_like(x, 1 / x.shape[dim])
        return func(*args, **given)
