"""Space `mobilenet`: seven stages of inverted residuals (Sandler et al. 2018), searched as MnasNet's (Tan et al. 2019).

A genotype is (stem, depths, widths, kernels, expansions, squeeze, head): channels of the stem; for each stage its
blocks, width, depthwise kernel, expansion, and whether it has squeeze-excite; channels ahead of the classifier.
MobileNetV2 is a point of it, with ReLU for ReLU6. Images of up to 64 pixels are downsampled by 8 instead of 32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from edgekd.artifacts import ModelSpec
from edgekd.models.mobilenet import squeezed, strides
from edgekd.profile.operators import Head, Network, SqueezeExcite, Sum
from edgekd.search.spaces import Gene, Genotype, Space

SMALL = 64  # pixels up to which the stem keeps the resolution
STAGES = 7
V2 = Genotype(
    stem=(32,),
    depths=(1, 2, 3, 4, 3, 3, 1),
    widths=(16, 24, 32, 64, 96, 160, 320),
    kernels=(3,) * STAGES,
    expansions=(1, 6, 6, 6, 6, 6, 6),
    squeeze=(0,) * STAGES,
    head=(1280,),
)


class MobileNetSpace(Space):
    name = "mobilenet"
    genes = {
        "stem": Gene.alike(1, 16, 24, 32),
        "depths": Gene.alike(STAGES, 1, 2, 3, 4),
        "widths": Gene(
            (
                (8, 16, 24),
                (16, 24, 32),
                (16, 24, 32, 40, 48),
                (32, 48, 64, 80),
                (48, 64, 80, 96, 112),
                (64, 96, 128, 160, 192),
                (96, 128, 160, 192, 256, 320),
            ),
            rising=True,
        ),
        "kernels": Gene.alike(STAGES, 3, 5),
        "expansions": Gene.alike(STAGES, 1, 3, 4, 6),
        "squeeze": Gene.alike(STAGES, 0, 1),
        "head": Gene.alike(1, 256, 512, 960, 1280),
    }
    named = {"mobilenetv2": V2}

    def fit(self) -> None:
        self.small_stem = max(self.input_shape[1:]) <= SMALL

    def spec(self, genotype: Genotype) -> ModelSpec:
        kwargs: dict[str, Any] = {name: list(values) for name, values in genotype.fields}
        kwargs |= {"stem": genotype.stem[0], "head": genotype.head[0], "small_stem": self.small_stem}
        return ModelSpec("edgekd", self.name, self.num_classes, self.input_shape, kwargs)

    def network(self, genotype: Genotype) -> Network:
        net = Network(self.input_shape)
        first, stage_strides = strides(self.small_stem)
        net.conv(genotype.stem[0], 3, first)
        shapes = zip(genotype.widths, genotype.kernels, genotype.expansions, genotype.squeeze, strict=True)
        for depth, stride, shape in zip(genotype.depths, stage_strides, shapes, strict=True):
            inverted_residual(net, shape, stride)
            net.repeat(depth - 1, partial(inverted_residual, shape=shape))
        net.conv(genotype.head[0], 1)
        c, h, w = net.out()
        net.add(Head(c, h, w, self.num_classes))
        return net


def inverted_residual(net: Network, shape: tuple[int, int, int, int], stride: int = 1) -> None:
    """Expand, convolve each channel, squeeze and excite, project; plus the input where the shape stays."""
    width, kernel, expansion, squeeze = shape
    start, c_in = net.last, net.out()[0]
    hidden = c_in * expansion
    if expansion > 1:
        net.conv(hidden, 1)
    net.conv(hidden, kernel, stride, groups=hidden)
    if squeeze:
        net.add(SqueezeExcite(hidden, squeezed(hidden), *net.out()[1:]))
    body = net.conv(width, 1, relu=False)
    if stride == 1 and c_in == width:
        net.add(Sum(net.out()), start, body)
