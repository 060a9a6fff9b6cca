"""AutoFormer and PiT: parameters counted by hand, shapes, and that every token is seen."""

from __future__ import annotations

import torch
from torch import nn

from edgekd.artifacts import ModelSpec
from edgekd.models import build_model
from edgekd.models.vit import Attention, AutoFormer, PiT


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_autoformer_parameters() -> None:
    net = AutoFormer(10, hidden_dim=24, num_heads=[1, 2], mlp_ratio=[2, 3.5], image_size=32, patch=8)
    stem = 24 * 3 * 64 + 24 + 24 + 17 * 24
    blocks = [
        (24 * 192 * q + 192 * q) + (64 * q * 24 + 24) + (24 * h + h) + (h * 24 + 24) + 4 * 24
        for q, h in ((1, 48), (2, 84))
    ]
    assert count(net) == stem + sum(blocks) + 2 * 24 + 24 * 10 + 10
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert net.forward_features(torch.zeros(2, 3, 32, 32)).shape == (2, 17, 24)


def test_pit_halves_the_grid() -> None:
    net = PiT(7, base_dim=8, depth=[1, 2, 1], num_heads=[1, 2, 2], mlp_ratio=2, image_size=64)
    assert len(net.blocks) == 4
    features = net.forward_features(torch.zeros(2, 3, 64, 64))
    assert features.shape == (2, 1 + 2 * 2, 16)  # 7 x 7 patches, 4 x 4, 2 x 2
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_attention_mixes_tokens_and_keeps_their_order() -> None:
    torch.manual_seed(0)
    attention = Attention(6, heads=2, head_dim=4)
    x = torch.randn(1, 5, 6)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(attention(x)[:, order], attention(x[:, order]), atol=1e-6)
    changed = x.clone()
    changed[:, 4] += 1
    assert not torch.allclose(attention(x)[:, 0], attention(changed)[:, 0])


def test_the_class_token_sees_the_last_patch() -> None:
    torch.manual_seed(0)
    for net in (
        AutoFormer(3, 16, [1], [2], image_size=32, patch=8),
        PiT(3, 8, [1, 1, 1], [1, 2, 4], 2, image_size=64),
    ):
        for parameter in net.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
        side = 32 if isinstance(net, AutoFormer) else 64
        image = torch.zeros(1, 3, side, side)
        changed = image.clone()
        changed[..., -1, -1] = 5
        assert not torch.allclose(net(image), net(changed))


def test_built_from_a_spec() -> None:
    kwargs = {"hidden_dim": 16, "num_heads": [1], "mlp_ratio": [2], "image_size": 32}
    net = build_model(ModelSpec("edgekd", "autoformer", 4, (3, 32, 32), kwargs))
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
