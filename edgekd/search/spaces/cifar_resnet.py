"""Space `cifar-resnet`: three stages of basic blocks at strides 1, 2, 2 with 3x3 kernels and 1x1 shortcuts.

A genotype is (depths, widths): 1-9 blocks a stage; widths in multiples of 8 that never fall, 8-64, 16-128 and 16-160.
ResNet-8, 14, 20, 32, 44 and 56 (He et al. 2016, section 4.2) are points of it.
"""

from __future__ import annotations

from functools import partial

from edgekd.artifacts import ModelSpec
from edgekd.profile.operators import Head, Network
from edgekd.search.spaces import Gene, Genotype, Space
from edgekd.search.spaces.resnet import basic_block


class CifarResNetSpace(Space):
    name = "cifar-resnet"
    genes = {
        "depths": Gene.alike(3, *range(1, 10)),
        "widths": Gene((tuple(range(8, 65, 8)), tuple(range(16, 129, 8)), tuple(range(16, 161, 8))), rising=True),
    }
    named = {f"resnet{6 * n + 2}": Genotype(depths=(n, n, n), widths=(16, 32, 64)) for n in (1, 2, 3, 5, 7, 9)}

    def spec(self, genotype: Genotype) -> ModelSpec:
        kwargs = {"depths": list(genotype.depths), "widths": list(genotype.widths)}  # lists: what JSON gives back
        return ModelSpec("edgekd", self.name, self.num_classes, self.input_shape, kwargs)

    def network(self, genotype: Genotype) -> Network:
        net = Network(self.input_shape)
        net.conv(genotype.widths[0], 3)
        for stage, (depth, width) in enumerate(zip(genotype.depths, genotype.widths, strict=True)):
            basic_block(net, width, 2 if stage > 0 else 1)
            net.repeat(depth - 1, partial(basic_block, width=width))
        c, h, w = net.out()
        net.add(Head(c, h, w, self.num_classes))
        return net
