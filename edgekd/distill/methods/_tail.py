"""The upper layers of a network, from a tapped feature on: what other methods may put in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.distill.methods._base import Network
from edgekd.errors import ConfigError


class Tail:
    """The layers of a network above the module `tap`: features [B, ...] there -> logits [B, K], with gradient."""

    def __init__(self, network: Network, tap: str) -> None:
        self.model, self.tap, self.input_shape = network.model, tap, network.input_shape

    def __call__(self, feature: Tensor) -> Tensor:
        image = torch.zeros(1, *self.input_shape, device=feature.device)
        with self._replaced(feature):
            logits: Tensor = self.model(image)
        return logits.float()

    def check(self) -> None:
        """Raises ConfigError unless the feature of an image, injected into the pass of another, gives its logits."""
        kept: list[Tensor] = []
        like = next(self.model.parameters())
        images = torch.randn(2, *self.input_shape, generator=torch.Generator().manual_seed(0)).to(like)
        hook = self.model.get_submodule(self.tap).register_forward_hook(lambda _m, _i, out: kept.append(out))
        with torch.no_grad():
            logits = self.model(images)
            hook.remove()
            again = self(kept[0])
        if again.shape != logits.shape or not torch.allclose(again, logits.float(), rtol=1e-3, atol=1e-4):
            raise ConfigError(
                f"distill.taps.teacher: what follows the teacher's {self.tap} does not depend on it alone",
                "Name an earlier or a later module, one that all goes through.",
            )

    @contextmanager
    def _replaced(self, feature: Tensor) -> Iterator[None]:
        def replace(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            return feature if feature.shape[1:] == output.shape[1:] else feature.permute(0, 2, 3, 1)  # Swin's order

        hook = self.model.get_submodule(self.tap).register_forward_hook(replace)
        try:
            yield
        finally:
            hook.remove()
