"""Scorer `naswot`: log |det K|, K the kernel of binary activation codes of one batch (Mellor et al. 2021, section 3).

K_ij counts the ReLU units, over the whole network, that are on for both images or off for both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from edgekd.search.scorers._network import NetworkScorer

RECTIFIERS = (F.relu, torch.relu, torch.relu_, F.relu6, F.hardtanh, F.gelu, F.hardswish, F.silu)


class Rectified(TorchFunctionMode):
    """Hands the input of every rectifier, module or function, to `seen`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in RECTIFIERS:
            self.seen.append(args[0])
        return func(*args, **(kwargs or {}))


class Naswot(NetworkScorer):
    @torch.no_grad()
    def measure(self, model: nn.Module) -> float:
        batch = len(self.task.images)
        kernel = torch.zeros(batch, batch, dtype=torch.float64)
        with Rectified() as rectified:
            model(self.task.images)
        for inputs in rectified.seen:
            codes = (inputs.flatten(1) > 0).float()
            kernel += (codes @ codes.T + (1 - codes) @ (1 - codes).T).double()
        return float(torch.linalg.slogdet(kernel).logabsdet)
