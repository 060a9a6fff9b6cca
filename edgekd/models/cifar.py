"""CIFAR ResNets (He et al. 2016, section 4.2) with free stage depths and widths: the reference teachers and students.

ResNet-6n+2 has depths (n, n, n) and widths (16, 32, 64). `shortcut` says how a block changes shape: `A` subsamples and
zero-pads channels (no parameters, the paper's CIFAR nets), `B` is a 1x1 convolution with BatchNorm (deploys better).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DEPTHS = {f"resnet{6 * n + 2}": (n, n, n) for n in (1, 2, 3, 5, 7, 9, 18)}  # 8, 14, 20, 32, 44, 56, 110


class PadShortcut(nn.Module):
    """x[:, :, ::2, ::2] with zero channels on both sides: [B, C, H, W] -> [B, C + extra, H/stride, W/stride]."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride, self.before, self.after = stride, extra // 2, extra - extra // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)): [B, C_in, H, W] -> [B, C_out, H/stride, W/stride]."""

    def __init__(self, c_in: int, c_out: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample: nn.Module
        if stride == 1 and c_in == c_out:
            self.downsample = nn.Identity()
        elif shortcut == "A":
            self.downsample = PadShortcut(stride, c_out - c_in)
        else:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class CifarResNet(nn.Module):
    """Three stages at strides 1, 2, 2. Input [B, in_channels, H, W], output logits [B, num_classes]."""

    def __init__(
        self,
        num_classes: int,
        depths: tuple[int, int, int] = (3, 3, 3),
        widths: tuple[int, int, int] = (16, 32, 64),
        in_channels: int = 3,
        shortcut: str = "B",
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        c_in = widths[0]
        stages = []
        for depth, width, stride in zip(depths, widths, (1, 2, 2), strict=True):
            blocks = [BasicBlock(c_in, width, stride, shortcut)]
            blocks += [BasicBlock(width, width, 1, shortcut) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
            c_in = width
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks in order."""
        return [block for stage in (self.layer1, self.layer2, self.layer3) for block in stage]

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map [B, C, H/4, W/4], before pooling."""
        x = F.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.flatten(self.avgpool(self.forward_features(x)), 1))
        return logits


def build(name: str, num_classes: int, in_channels: int, **kwargs: object) -> CifarResNet:
    """A reference net by name (`resnet8` ... `resnet110`) or, as `cifar-resnet`, by depths and widths."""
    if name in DEPTHS:
        kwargs = {"depths": DEPTHS[name], **kwargs}
    return CifarResNet(num_classes, in_channels=in_channels, **kwargs)  # type: ignore[arg-type]


def translate_state(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """A published CIFAR ResNet's state dict in our names, and the shortcut kind it was trained with.

    Known layouts: `module.` prefix with head `linear` (parameter-free shortcuts), and `downsample` with head `fc`.
    """
    renamed = {key.removeprefix("module.").replace("linear.", "fc."): value for key, value in state.items()}
    return renamed, "B" if any(".downsample." in key for key in renamed) else "A"
