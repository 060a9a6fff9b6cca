"""Scorer `sqnr`: signal to quantization noise of a random network's logits, in dB.

    10 log10 (|z|^2 / |z - z_q|^2)

z are the logits of one batch, z_q those with the weights of every convolution and linear layer rounded to INT8, a scale
an output channel, and its inputs, a scale a tensor, both symmetric by their largest absolute value. It asks which
architecture hands rounding errors on, before there are weights to ask.

Not a term of the default scorer: on 500 cells of NAS-Bench-201 it ranks INT8 accuracy (Kendall's tau -.29) and what
INT8 changes of FP32's accuracy (-.32) upside down, and params better (.55, .30) (`benchmarks/search_rank.py`). Deep
cells of convolutions hand on more noise before training, and are those that training makes robust.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgekd.search.scorers._network import NetworkScorer

LEVELS = 127


class Sqnr(NetworkScorer):
    @torch.no_grad()
    def measure(self, model: nn.Module) -> float:
        logits = model(self.task.images)
        for module in model.modules():
            if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
                module.weight.copy_(rounded(module.weight, tuple(range(1, module.weight.ndim))))
                module.register_forward_pre_hook(_round_inputs)
        noise = (model(self.task.images) - logits).square().sum()
        return float(10 * torch.log10(logits.square().sum() / noise))


def rounded(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """To 255 levels symmetric about 0, the largest absolute value over `dims` the outermost."""
    scale = x.abs().amax(dims, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny) / LEVELS
    return torch.round(x / scale) * scale


def _round_inputs(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (rounded(inputs[0], tuple(range(inputs[0].ndim))), *inputs[1:])
