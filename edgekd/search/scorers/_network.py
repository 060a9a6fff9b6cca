"""What scorers of an untrained network share: random draws of it, and its gradients on one batch."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgekd.artifacts import ModelSpec
from edgekd.errors import ModelError
from edgekd.models import build_random
from edgekd.search.scorers import Score, Scorer, ScoringTask
from edgekd.search.spaces import Point
from edgekd.stage import fingerprint


class NetworkScorer(Scorer):
    """Mean and standard deviation of `measure` over `inits` random networks, each drawn from the seed and the point."""

    def __init__(self, task: ScoringTask) -> None:
        super().__init__(task)
        self.generator = torch.Generator()  # for what else a measure draws; set anew for every network

    def score(self, point: Point) -> Score:
        values = []
        for init in range(self.task.inits):
            self.generator.manual_seed(network_seed(point.spec, self.task.seed, init))
            values.append(self.measure(random_network(point.spec, self.task.seed, init)))
        return Score.average(values)

    @abstractmethod
    def measure(self, model: nn.Module) -> float:
        """The score of one random network; it may be changed."""


def random_network(spec: ModelSpec, seed: int, init: int) -> nn.Module:
    """`spec` with its framework's own initialisation, in training mode: normalised by batch statistics."""
    return build_random(spec, network_seed(spec, seed, init)).train()


def network_seed(spec: ModelSpec, seed: int, init: int) -> int:
    """A seed for draw `init` of this architecture, so that its score does not depend on what was scored before."""
    return int(fingerprint([seed, init, replace(spec, weights=None, mean=(), std=()).to_json()])[:15], 16)


def gaussian_init(model: nn.Module, generator: torch.Generator) -> None:
    """Convolution and linear weights from N(0, 1), biases 0, normalisations the identity; in place."""
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            nn.init.normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm):
            if module.weight is not None:
                nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def kernels(model: nn.Module) -> list[Tensor]:
    """The weights of convolutions and linear layers."""
    return [m.weight for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)]


def loss_gradients(model: nn.Module, images: Tensor, labels: Tensor, differentiable: bool = False) -> list[Tensor]:
    """Gradients of the mean cross-entropy with respect to `kernels(model)`.

    `differentiable` ones go through attention written out: its fused kernels have no second derivative.
    """
    with sdpa_kernel(SDPBackend.MATH) if differentiable else nullcontext():
        loss = F.cross_entropy(model(images), labels)
        return list(torch.autograd.grad(loss, kernels(model), create_graph=differentiable))


def block_passes(model: nn.Module, images: Tensor) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """One forward pass: every residual block with its input and output, maps or tokens, in order.

    Raises ModelError for a model without a `blocks` attribute.
    """
    blocks = getattr(model, "blocks", None)
    if not blocks:
        raise ModelError(
            f"{type(model).__name__} does not say what its blocks are", "Set search.scorer to capacity or params."
        )
    passes: list[tuple[nn.Module, Tensor, Tensor]] = []
    hooks = [
        block.register_forward_hook(lambda module, inputs, output: passes.append((module, inputs[0], output)))
        for block in blocks
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    return passes
