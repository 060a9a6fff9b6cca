"""A part of a network between two taps, run on a feature that another one made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.distill.methods._base import Network
from edgekd.errors import ConfigError


class _Reached(Exception):
    """The pass has come to the end of the segment."""


class Segment:
    """What lies above the module `start` up to `end`: features [B, ...] there -> features here, with gradient.

    `start` None is the images, normalised as the network wants them; `end` None is the logits. The network goes through
    what lies below on one image only; so what lies above must depend on `start` alone.
    """

    def __init__(self, network: Network, start: str | None, end: str | None = None) -> None:
        self.network, self.model, self.start, self.end = network, network.model, start, end

    def __call__(self, feature: Tensor) -> Tensor:
        images = feature if self.start is None else torch.zeros(1, *self.network.input_shape, device=feature.device)
        reached: list[Tensor] = []
        with self._replaced(feature), self._stopped(reached):
            try:
                reached.append(self.model(images))
            except _Reached:
                pass
        return reached[0].float()

    def parameters(self) -> list[nn.Parameter]:
        """The trained ones that a gradient from the end reaches, found by a pass of two images."""
        images, training = self._noise(), self.model.training
        self.model.eval()
        feature = images if self.start is None else self._feature(images).detach()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        found = torch.autograd.grad(self(feature).sum(), trained, allow_unused=True)
        self.model.train(training)
        return [parameter for parameter, gradient in zip(trained, found, strict=True) if gradient is not None]

    @torch.no_grad()
    def check(self, whose: str = "teacher") -> None:
        """Raises ConfigError unless the feature of an image, injected into the pass of another, gives its logits."""
        if self.start is None:
            return
        images, training = self._noise(), self.model.training
        logits = self.model.eval()(images).float()
        again = Segment(self.network, self.start)(self._feature(images))
        self.model.train(training)
        if again.shape != logits.shape or not torch.allclose(again, logits, rtol=1e-3, atol=1e-4):
            raise ConfigError(
                f"distill.taps.{whose}: what follows the {whose}'s {self.start} does not depend on it alone",
                "Name an earlier or a later module, one that all goes through.",
            )

    def _noise(self) -> Tensor:
        """Two images."""
        images = torch.randn(2, *self.network.input_shape, generator=torch.Generator().manual_seed(0))
        return images.to(next(self.model.parameters()))

    def _feature(self, images: Tensor) -> Tensor:
        """What `start` gives for images."""
        assert self.start is not None
        kept: list[Tensor] = []
        hook = self.model.get_submodule(self.start).register_forward_hook(lambda _m, _i, out: kept.append(out))
        try:
            self.model(images)
        finally:
            hook.remove()
        return kept[0]

    @contextmanager
    def _replaced(self, feature: Tensor) -> Iterator[None]:
        def replace(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            return feature if feature.shape[1:] == output.shape[1:] else feature.permute(0, 2, 3, 1)  # Swin's order

        if self.start is None:
            yield
            return
        hook = self.model.get_submodule(self.start).register_forward_hook(replace)
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def _stopped(self, reached: list[Tensor]) -> Iterator[None]:
        def stop(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            reached.append(output)
            raise _Reached

        if self.end is None:
            yield
            return
        hook = self.model.get_submodule(self.end).register_forward_hook(stop)
        try:
            yield
        finally:
            hook.remove()
