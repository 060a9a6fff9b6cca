"""ResNet and MobileNet: sizes by hand, what timm's weights need, what INT8 needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.artifacts import ModelSpec
from edgekd.errors import ModelError
from edgekd.models import build_model, cost
from edgekd.models.mobilenet import InvertedResidual, MobileNet, SqueezeExcite, squeezed
from edgekd.models.resnet import ResNet

SEVEN = {"depths": [1] * 7, "widths": [16] * 7, "kernels": [3] * 7, "expansions": [1] * 7, "squeeze": [0] * 7}


def test_a_basic_block_by_hand() -> None:
    net = ResNet(10, "basic", (1, 1, 1, 1), (16, 32, 64, 128), small_stem=True)
    kernels = [3 * 64 * 9, 64 * 16 * 9, 16 * 16 * 9, 64 * 16]  # stem; first block with its shortcut
    for width in (32, 64, 128):
        kernels += [width // 2 * width * 9, width * width * 9, width // 2 * width]
    norms = 2 * (64 + 3 * (16 + 32 + 64 + 128))
    assert sum(p.numel() for p in net.parameters()) == sum(kernels) + norms + 128 * 10 + 10
    assert len(net.blocks) == 4
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_weights_of_timm_load_from_a_file(tmp_path: Path) -> None:
    theirs = timm.create_model("resnet18", num_classes=3).eval()
    save_file(theirs.state_dict(), tmp_path / "resnet18.safetensors")
    spec = ModelSpec("edgekd", "resnet", 3, (3, 64, 64), weights=str(tmp_path / "resnet18.safetensors"))
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(build_model(spec)(images), theirs(images))
    small = ModelSpec(**{**spec.to_json(), "kwargs": {"small_stem": True}})
    with pytest.raises(ModelError, match="another shape for conv1.weight"):
        build_model(small)


def test_no_block_starts_as_nothing() -> None:
    """A BatchNorm of gain zero folds into a kernel of zeros, which has no scale."""
    for net in (ResNet(5, depths=(1, 1, 1, 1), small_stem=True), MobileNet(5, **SEVEN)):  # type: ignore[arg-type]
        assert all((m.weight == 1).all() for m in net.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("expansion", "squeeze", "params"),
    [
        (1, False, (8 * 9 + 16) + (8 * 8 + 16)),
        (3, False, (8 * 24 + 48) + (24 * 9 + 48) + (24 * 8 + 16)),
        (3, True, (8 * 24 + 48) + (24 * 9 + 48) + (24 * 16 + 16 + 16 * 24 + 24) + (24 * 8 + 16)),
    ],
)
def test_an_inverted_residual_by_hand(expansion: int, squeeze: bool, params: int) -> None:
    block = InvertedResidual(8, 8, 3, 1, expansion, squeeze).eval()
    assert sum(p.numel() for p in block.parameters()) == params
    x = torch.randn(1, 8, 4, 4)
    assert torch.allclose(block(x), x + block.body(x))
    assert not InvertedResidual(8, 8, 3, 2, 1, False).residual


def test_squeeze_excite_gates_every_channel() -> None:
    gate = SqueezeExcite(24)
    nn.init.zeros_(gate.expand.weight)
    nn.init.zeros_(gate.expand.bias)
    x = torch.randn(2, 24, 3, 3)
    assert torch.allclose(gate(x), x / 2)  # sigmoid(0)
    assert [squeezed(hidden) for hidden in (24, 64, 96, 100, 960)] == [16, 16, 24, 32, 240]


def test_every_activation_is_a_relu() -> None:
    net = MobileNet(5, **{**SEVEN, "expansions": [6] * 7})  # type: ignore[arg-type]
    kinds = {type(m) for m in net.modules() if type(m).__module__ == "torch.nn.modules.activation"}
    assert kinds == {nn.ReLU}


def test_attention_counts_in_the_cost_of_a_model() -> None:
    """One block of 4 heads on 5 tokens: 2 n^2 c beside the linear layers."""
    kwargs = {"hidden_dim": 8, "num_heads": [4], "mlp_ratio": [2], "image_size": 8, "patch": 4}
    found = cost(build_model(ModelSpec("edgekd", "autoformer", 3, (1, 8, 8), kwargs)), (1, 8, 8))
    linear = 5 * (8 * 768 + 256 * 8 + 8 * 16 + 16 * 8)
    assert found.macs == 4 * 8 * 16 + linear + 2 * 25 * 256 + 8 * 3
