"""Space `pit`: pooling vision transformers (Heo et al. 2021), three stages that halve the grid of tokens.

A genotype is (base_dim, depths, num_heads, mlp_ratio): channels of a head; for each stage its blocks and its heads,
which never fall; the width of every MLP. PiT-Ti is a point of it. Patches overlap by half and have 16 pixels, fewer for
images below 112.
"""

from __future__ import annotations

from functools import partial

from edgekd.artifacts import ModelSpec
from edgekd.errors import ConfigError
from edgekd.profile.operators import Network
from edgekd.profile.token_operators import Patches, TokenHead, TokenPool
from edgekd.search.spaces import Gene, Genotype, Space
from edgekd.search.spaces.autoformer import square, transformer_block

PATCHES, LEAST = (16, 8, 4, 2), 13  # sides of a patch, and patches on a side that are enough


class PiTSpace(Space):
    name = "pit"
    genes = {
        "base_dim": Gene.alike(1, 16, 24, 32, 40),
        "depths": Gene(((1, 2, 3), (4, 6, 8), (2, 4, 6))),
        "num_heads": Gene(((2, 4, 8),) * 3, rising=True),
        "mlp_ratio": Gene.alike(1, 2, 4, 6, 8),
    }
    named = {"pit-tiny": Genotype(base_dim=(32,), depths=(2, 6, 4), num_heads=(2, 4, 8), mlp_ratio=(4,))}

    def fit(self) -> None:
        side = square(self.name, self.input_shape)
        sizes = {patch: (side - patch) // (patch // 2) + 1 for patch in PATCHES}
        self.patch = next((patch for patch in PATCHES if sizes[patch] >= LEAST), PATCHES[-1])
        if side < self.patch:
            raise ConfigError(
                f"search.space {self.name}: an image of {side} pixels holds no patch", "Set image_size to 8 or more."
            )

    def blocks(self, genotype: Genotype) -> list[int]:
        stages = zip(genotype.depths, genotype.num_heads, strict=True)
        return [genotype.base_dim[0] * heads for depth, heads in stages for _ in range(depth)]

    def spec(self, genotype: Genotype) -> ModelSpec:
        kwargs = {
            "base_dim": genotype.base_dim[0],
            "depth": list(genotype.depths),
            "num_heads": list(genotype.num_heads),
            "mlp_ratio": genotype.mlp_ratio[0],
            "image_size": self.input_shape[1],
            "patch": self.patch,
        }
        return ModelSpec("edgekd", self.name, self.num_classes, self.input_shape, kwargs)

    def network(self, genotype: Genotype) -> Network:
        net, (dim,), (ratio,) = Network(self.input_shape), genotype.base_dim, genotype.mlp_ratio
        patches = Patches(
            self.input_shape[0],
            dim * genotype.num_heads[0],
            self.patch,
            self.patch // 2,
            *self.input_shape[1:],
            placed=False,
        )
        net.add(patches)
        h, w = patches.grid
        for stage, (depth, heads) in enumerate(zip(genotype.depths, genotype.num_heads, strict=True)):
            if stage:
                pool = TokenPool(net.out()[1], dim * heads, h, w)
                net.add(pool)
                _, h, w = pool.conv.out
            net.repeat(depth, partial(transformer_block, heads=heads, head_dim=dim, mlp_ratio=ratio))
        n, c = net.out()
        net.add(TokenHead(n, c, self.num_classes))
        return net
