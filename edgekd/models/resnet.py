"""ImageNet ResNets (He et al. 2016, table 1) with free stage depths and widths: timm's class and names.

ResNet-18 and 34 have basic blocks, ResNet-26 and 50 bottlenecks. The stem is a 7x7 convolution and a pool, at stride 4
together; `small_stem` has a 3x3 convolution at stride 1 instead, for images that would have nothing left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import resnet
from torch import nn

BLOCKS = {"basic": resnet.BasicBlock, "bottleneck": resnet.Bottleneck}
STEM = 64  # its channels, whatever the widths are


class ResNet(resnet.ResNet):
    """Input [B, in_channels, H, W], output logits [B, num_classes]; loads the state dict of timm's net of that shape.

    `block` is `basic` or `bottleneck`, whose output has four times the stage's width. The last BatchNorm of a block
    starts at one and not, as timm has it, at zero, which leaves nothing to score and nothing to fold.
    """

    def __init__(
        self,
        num_classes: int,
        block: str = "basic",
        depths: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        in_channels: int = 3,
        small_stem: bool = False,
    ) -> None:
        shape: dict[str, Any] = {"block": BLOCKS[block], "layers": tuple(depths), "channels": tuple(widths)}
        super().__init__(**shape, num_classes=num_classes, in_chans=in_channels, zero_init_last=False)
        if small_stem:
            stem = nn.Conv2d(in_channels, STEM, 3, 1, 1, bias=False)
            nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
            self.add_module("conv1", stem)
            self.add_module("maxpool", nn.Identity())

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks in order."""
        return [block for stage in range(1, 5) for block in self.get_submodule(f"layer{stage}").children()]
