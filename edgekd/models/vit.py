"""Small vision transformers of two published search spaces: AutoFormer (Chen et al. 2021) and PiT (Heo et al. 2021).

AutoFormer varies width, depth, and heads and MLP ratio of every block; a head has 64 channels whatever the width is.
PiT has three stages that halve the grid, of `base_dim` channels a head. Neither has relative positions here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention, [B, N, C] -> [B, N, C]; the heads' channels need not add up to C."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * heads * head_dim)
        self.proj = nn.Linear(heads * head_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Pre-norm transformer block, [B, N, C] -> [B, N, C]."""

    def __init__(self, width: int, heads: int, head_dim: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, head_dim)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class AutoFormer(nn.Module):
    """Input [B, in_channels, H, W] with H and W multiples of `patch`, output logits [B, num_classes]."""

    def __init__(
        self,
        num_classes: int,
        hidden_dim: int,
        num_heads: Sequence[int],
        mlp_ratio: Sequence[float],
        in_channels: int = 3,
        image_size: int = 224,
        patch: int = 16,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, hidden_dim, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, hidden_dim))
        self.positions = nn.Parameter(torch.zeros(1, (image_size // patch) ** 2 + 1, hidden_dim))
        self.blocks = nn.ModuleList(
            Block(hidden_dim, heads, 64, ratio) for heads, ratio in zip(num_heads, mlp_ratio, strict=True)
        )
        self.norm = nn.LayerNorm(hidden_dim)
        self.head = nn.Linear(hidden_dim, num_classes)
        _initialise(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last tokens [B, 1 + N, C], the class token first."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(x)[:, 0])
        return logits


class Pooling(nn.Module):
    """Depthwise 3x3 at stride 2 on the grid and a linear layer on the class token: C -> a multiple of C channels."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.grid = nn.Conv2d(c_in, c_out, 3, 2, 1, groups=c_in)
        self.token = nn.Linear(c_in, c_out)

    def forward(self, token: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        return self.token(token), self.grid(grid)


class PiT(nn.Module):
    """Input [B, in_channels, H, W], output logits [B, num_classes]; patches at a stride of half their side."""

    def __init__(
        self,
        num_classes: int,
        base_dim: int,
        depth: Sequence[int],
        num_heads: Sequence[int],
        mlp_ratio: float,
        in_channels: int = 3,
        image_size: int = 224,
        patch: int = 16,
    ) -> None:
        super().__init__()
        widths = [base_dim * heads for heads in num_heads]
        side = (image_size - patch) // (patch // 2) + 1
        self.patches = nn.Conv2d(in_channels, widths[0], patch, patch // 2)
        self.positions = nn.Parameter(torch.zeros(1, widths[0], side, side))
        self.token = nn.Parameter(torch.zeros(1, 1, widths[0]))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, heads, base_dim, mlp_ratio) for _ in range(blocks)))
            for width, heads, blocks in zip(widths, num_heads, depth, strict=True)
        )
        self.poolings = nn.ModuleList(Pooling(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)
        _initialise(self)

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks in order."""
        return [block for stage in self.stages for block in stage]  # type: ignore[attr-defined]

    def forward_features(self, x: Tensor) -> Tensor:
        """The last tokens [B, 1 + N, C], the class token first."""
        grid = self.patches(x) + self.positions
        token = self.token.expand(x.shape[0], -1, -1)
        for i, stage in enumerate(self.stages):
            if i:
                token, grid = self.poolings[i - 1](token, grid)
            height, width = grid.shape[2:]
            tokens = stage(torch.cat([token, grid.flatten(2).transpose(1, 2)], dim=1))
            token, grid = tokens[:, :1], tokens[:, 1:].transpose(1, 2).unflatten(2, (height, width))
        out: Tensor = self.norm(tokens)
        return out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(x)[:, 0])
        return logits


def _initialise(model: nn.Module) -> None:
    """Truncated normal of deviation 0.02 on weights, tokens and positions; biases zero (Touvron et al. 2021)."""
    for name, parameter in model.named_parameters():
        if "norm" in name:
            continue
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=0.02)
        else:
            nn.init.zeros_(parameter)
