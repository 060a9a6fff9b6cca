"""Space `resnet`: four stages of basic blocks or bottlenecks behind an ImageNet stem (He et al. 2016, table 1).

A genotype is (block, depths, widths): 1-6 blocks a stage; widths of 2/8 to 8/8 of 64, 128, 256 and 512 that never fall.
ResNet-10, 18, 26, 34 and 50 are points of it, and take timm's weights. Images of up to 64 pixels have a 3x3 stem.
"""

from __future__ import annotations

from functools import partial

from edgekd.artifacts import ModelSpec
from edgekd.profile.operators import Add, Head, Network, Pool
from edgekd.search.spaces import Gene, Genotype, Space

SMALL = 64  # pixels up to which the stem keeps the resolution
STEM = 64  # its channels
WIDTHS = (64, 128, 256, 512)


def _named(block: str, *depths: int) -> Genotype:
    return Genotype(block=(block,), depths=depths, widths=WIDTHS)


class ResNetSpace(Space):
    name = "resnet"
    genes = {
        "block": Gene.alike(1, "basic", "bottleneck"),
        "depths": Gene.alike(4, *range(1, 7)),
        "widths": Gene(tuple(tuple(width * eighth // 8 for eighth in range(2, 9)) for width in WIDTHS), rising=True),
    }
    named = {
        "resnet10": _named("basic", 1, 1, 1, 1),
        "resnet18": _named("basic", 2, 2, 2, 2),
        "resnet26": _named("bottleneck", 2, 2, 2, 2),
        "resnet34": _named("basic", 3, 4, 6, 3),
        "resnet50": _named("bottleneck", 3, 4, 6, 3),
    }

    def fit(self) -> None:
        self.small_stem = max(self.input_shape[1:]) <= SMALL

    def spec(self, genotype: Genotype) -> ModelSpec:
        kwargs = {
            "block": genotype.block[0],
            "depths": list(genotype.depths),
            "widths": list(genotype.widths),
            "small_stem": self.small_stem,
        }
        return ModelSpec("edgekd", self.name, self.num_classes, self.input_shape, kwargs)

    def network(self, genotype: Genotype) -> Network:
        net = Network(self.input_shape)
        if self.small_stem:
            net.conv(STEM, 3)
        else:
            net.conv(STEM, 7, 2)
            c, h, w = net.out()
            net.add(Pool("max", c, 3, 2, 1, h, w))
        append = basic_block if genotype.block == ("basic",) else bottleneck
        for stage, (depth, width) in enumerate(zip(genotype.depths, genotype.widths, strict=True)):
            append(net, width, 2 if stage > 0 else 1)
            net.repeat(depth - 1, partial(append, width=width))
        c, h, w = net.out()
        net.add(Head(c, h, w, self.num_classes))
        return net


def basic_block(net: Network, width: int, stride: int = 1) -> None:
    """relu(conv3(relu(conv3(x))) + shortcut(x))."""
    start = net.last
    net.conv(width, 3, stride)
    add_shortcut(net, start, net.conv(width, 3, relu=False), stride)


def bottleneck(net: Network, width: int, stride: int = 1) -> None:
    """relu(conv1(relu(conv3(relu(conv1(x))))) + shortcut(x)), four times as wide at the end."""
    start = net.last
    net.conv(width, 1)
    net.conv(width, 3, stride)
    add_shortcut(net, start, net.conv(4 * width, 1, relu=False), stride)


def add_shortcut(net: Network, start: int, body: int, stride: int) -> None:
    """Add the block's input, through a 1x1 convolution where the shape changes, and ReLU."""
    c, h, w = net.out(body)
    changes = stride != 1 or net.out(start)[0] != c
    shortcut = net.conv(c, 1, stride, on=start, relu=False) if changes else start
    net.add(Add(c, h, w), body, shortcut)
