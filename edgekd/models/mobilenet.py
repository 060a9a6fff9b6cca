"""Inverted residuals (Sandler et al. 2018, section 3.3) with free depth, width, kernel, expansion and squeeze-excite.

Every activation is a ReLU. INT8 kernels end in it for nothing, while ReLU6 and hard-swish stay float operators on the
widest maps of the network. The gate of squeeze-excite (Hu et al. 2018) is a sigmoid of one value a channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def squeezed(hidden: int) -> int:
    """Channels inside of squeeze-excite: a quarter of `hidden` in multiples of 8, at least 16."""
    return max(16, -(-hidden // 32) * 8)


def strides(small_stem: bool) -> tuple[int, tuple[int, ...]]:
    """Of the stem and of the seven stages: 32 in all, or 8 for small images."""
    return (1, (1, 1, 2, 2, 1, 2, 1)) if small_stem else (2, (1, 2, 2, 2, 1, 2, 1))


class SqueezeExcite(nn.Module):
    """x * sigmoid(W2 relu(W1 mean(x))): [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed(channels), 1)
        self.expand = nn.Conv2d(squeezed(channels), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * gate


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project: [B, C_in, H, W] -> [B, C_out, H/stride, W/stride]."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int, squeeze: bool) -> None:
        super().__init__()
        hidden = c_in * expansion
        layers: list[nn.Module] = [*_conv(c_in, hidden, 1), nn.ReLU()] if expansion > 1 else []
        layers += [*_conv(hidden, hidden, kernel, stride, groups=hidden), nn.ReLU()]
        layers += [SqueezeExcite(hidden)] if squeeze else []
        self.body = nn.Sequential(*layers, *_conv(hidden, c_out, 1))
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """Input [B, in_channels, H, W], output logits [B, num_classes]; a value of every sequence for each of 7 stages."""

    def __init__(
        self,
        num_classes: int,
        depths: Sequence[int],
        widths: Sequence[int],
        kernels: Sequence[int],
        expansions: Sequence[int],
        squeeze: Sequence[int],
        stem: int = 32,
        head: int = 1280,
        in_channels: int = 3,
        small_stem: bool = False,
    ) -> None:
        super().__init__()
        first, stage_strides = strides(small_stem)
        self.stem = nn.Sequential(*_conv(in_channels, stem, 3, first), nn.ReLU())
        c, blocks = stem, []
        stages = zip(depths, widths, kernels, stage_strides, expansions, squeeze, strict=True)
        for depth, width, kernel, stride, expansion, gate in stages:
            for block in range(depth):
                blocks.append(InvertedResidual(c, width, kernel, 1 if block else stride, expansion, bool(gate)))
                c = width
        self.body = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_conv(c, head, 1), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(head, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def blocks(self) -> list[nn.Module]:
        """The inverted residuals in order."""
        return list(self.body)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map, before pooling."""
        out: Tensor = self.head(self.body(self.stem(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.flatten(self.avgpool(self.forward_features(x)), 1))
        return logits


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> tuple[nn.Module, nn.Module]:
    """A convolution with its BatchNorm."""
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out)
