"""Space `autoformer`: vision transformers of AutoFormer's tiny space (Chen et al. 2021, table 1), a head 64 channels.

A genotype is (hidden_dim, depth, num_heads, mlp_ratio): 192, 216 or 240 channels, 12-14 blocks, and for each block its
heads and the width of its MLP. DeiT-Ti is a point of it. Patches have 16 pixels, fewer for images below 112.
"""

from __future__ import annotations

from edgekd.artifacts import ModelSpec
from edgekd.errors import ConfigError
from edgekd.profile.operators import Network, Sum
from edgekd.profile.token_operators import Attention, Gelu, LayerNorm, Linear, Patches, TokenHead
from edgekd.search.spaces import Gene, Genotype, Space

HEAD_DIM = 64
DEPTHS = (12, 13, 14)
PATCHES, LEAST = (16, 8, 4, 2, 1), 7  # sides of a patch, and patches on a side that are enough


class AutoFormerSpace(Space):
    name = "autoformer"
    genes = {
        "hidden_dim": Gene.alike(1, 192, 216, 240),
        "depth": Gene.alike(1, *DEPTHS),
        "num_heads": Gene.alike(DEPTHS[-1], 3, 4),
        "mlp_ratio": Gene.alike(DEPTHS[-1], 3.5, 4.0),
    }
    named = {"deit-tiny": Genotype(hidden_dim=(192,), depth=(12,), num_heads=(3,) * 12, mlp_ratio=(4.0,) * 12)}

    def fit(self) -> None:
        side = square(self.name, self.input_shape)
        self.patch = next((patch for patch in PATCHES if side // patch >= LEAST), 1)
        if side % self.patch:
            near = side // self.patch * self.patch
            raise ConfigError(
                f"search.space {self.name}: images of {side} pixels are no multiple of its patches of {self.patch}",
                f"Set image_size to {near} or {near + self.patch}.",
            )

    def blocks(self, genotype: Genotype) -> list[int]:
        return [genotype.hidden_dim[0]] * genotype.depth[0]

    def positions(self, genotype: Genotype, field: str) -> int:
        """A value for each block there is."""
        blocks: int = genotype.depth[0]
        return blocks if field in ("num_heads", "mlp_ratio") else 1

    def size(self) -> int:
        block = len(self.genes["num_heads"].choices[0]) * len(self.genes["mlp_ratio"].choices[0])
        ways: int = sum(block**depth for depth in DEPTHS)
        return self.genes["hidden_dim"].size() * ways

    def spec(self, genotype: Genotype) -> ModelSpec:
        kwargs = {
            "hidden_dim": genotype.hidden_dim[0],
            "num_heads": list(genotype.num_heads),
            "mlp_ratio": list(genotype.mlp_ratio),
            "image_size": self.input_shape[1],
            "patch": self.patch,
        }
        return ModelSpec("edgekd", self.name, self.num_classes, self.input_shape, kwargs)

    def network(self, genotype: Genotype) -> Network:
        net, width = Network(self.input_shape), genotype.hidden_dim[0]
        c, h, w = self.input_shape
        net.add(Patches(c, width, self.patch, self.patch, h, w))
        for heads, ratio in zip(genotype.num_heads, genotype.mlp_ratio, strict=True):
            transformer_block(net, heads, HEAD_DIM, ratio)
        n, _ = net.out()
        net.add(TokenHead(n, width, self.num_classes))
        return net


def transformer_block(net: Network, heads: int, head_dim: int, mlp_ratio: float) -> None:
    """x + attention(norm(x)), then x + mlp(norm(x))."""
    start, (n, c) = net.last, net.out()
    net.add(LayerNorm(n, c))
    net.add(Linear(n, c, 3 * heads * head_dim))
    net.add(Attention(n, heads, head_dim))
    start = net.add(Sum((n, c)), start, net.add(Linear(n, heads * head_dim, c)))
    hidden = int(c * mlp_ratio)
    net.add(LayerNorm(n, c))
    net.add(Linear(n, c, hidden))
    net.add(Gelu(n, hidden))
    net.add(Sum((n, c)), start, net.add(Linear(n, hidden, c)))


def square(space: str, input_shape: tuple[int, int, int]) -> int:
    """The side of the images. Raises ConfigError where there are two."""
    _, h, w = input_shape
    if h != w:
        raise ConfigError(
            f"search.space {space}: images of {h} x {w} are not square", "Set image_size, or search.space to resnet."
        )
    return h
