"""Taps: where the stages end, what the classifier is, and that listening changes nothing."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from edgekd.artifacts import ModelSpec
from edgekd.errors import ConfigError, ModelError
from edgekd.models import build_model
from edgekd.models.taps import Tapped, default_taps

RESNET = ModelSpec("edgekd", "resnet8", 10, (3, 32, 32))
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 6, "num_heads": 2, "num_classes": 7}


def test_stages_of_a_cifar_resnet() -> None:
    shapes = {"layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8)}
    assert default_taps(build_model(RESNET), (3, 32, 32)) == shapes


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet26", "mobilenetv3_small_050", "convnext_atto", "regnetx_002", "densenet121"]
)
def test_the_stages_are_those_timm_lists(name: str) -> None:
    net = timm.create_model(name)
    size = 64
    taps = default_taps(net, (3, size, size))
    listed = {info["module"]: (info["num_chs"], size // info["reduction"]) for info in net.feature_info}
    assert {tap: shape[:2] for tap, shape in taps.items()} == {tap: s for tap, s in listed.items() if s[1] > 1}


def test_inverted_residuals_are_tapped_between_blocks() -> None:
    """The expansion of a stride-2 block is the last convolution at the old resolution, and no stage's end."""
    taps = default_taps(torchvision.models.mobilenet_v2(), (3, 64, 64))
    assert {tap: shape[0] for tap, shape in taps.items()} == {
        "features.1": 16,
        "features.3": 24,
        "features.6": 32,
        "features.13": 96,
        "features.18": 1280,
    }


def test_blocks_of_transformers() -> None:
    kwargs = {"hidden_dim": 16, "num_heads": [1] * 8, "mlp_ratio": [1] * 8, "image_size": 32, "patch": 8}
    ours = build_model(ModelSpec("edgekd", "autoformer", 10, (3, 32, 32), kwargs))
    assert default_taps(ours, (3, 32, 32)) == {f"blocks.{i}": (17, 16) for i in (1, 3, 5, 7)}
    timms = timm.create_model("vit_tiny_patch16_224", **VIT)
    assert default_taps(timms, (3, 32, 32)) == {f"blocks.{i}": (17, 24) for i in (0, 2, 3, 5)}
    theirs = torchvision.models.VisionTransformer(32, 8, 2, 2, 24, 48)
    assert list(default_taps(theirs, (3, 32, 32))) == [f"encoder.layers.encoder_layer_{i}" for i in (0, 1)]


def test_channels_last_maps_come_out_as_channels_first() -> None:
    net = torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [2, 2]).eval()
    tapped = Tapped(net, (3, 32, 32), features=True)
    assert list(tapped.side.shapes.values()) == [(16, 8, 8), (32, 4, 4)]
    outputs = tapped(torch.randn(2, 3, 32, 32))
    assert outputs.features is not None
    assert [tuple(value.shape) for value in outputs.features.values()] == [(2, 16, 8, 8), (2, 32, 4, 4)]


@pytest.mark.parametrize(
    "net",
    [
        build_model(RESNET),
        timm.create_model("vit_tiny_patch16_224", **VIT),
        torchvision.models.mobilenet_v3_small(num_classes=5),
    ],
    ids=["resnet", "vit", "mobilenet"],
)
def test_outputs(net: nn.Module) -> None:
    """The classifier makes the logits of the embeddings, gradients pass, and the logits are the plain network's."""
    net = copy.deepcopy(net).eval()
    tapped = Tapped(net, (3, 32, 32), features=True, embeddings=True)
    images = torch.randn(3, 3, 32, 32)
    plain = net(images)
    outputs = tapped(images)
    assert torch.equal(outputs.logits, plain)
    assert outputs.features is not None and outputs.embeddings is not None
    assert {tap: tuple(value.shape[1:]) for tap, value in outputs.features.items()} == tapped.side.shapes
    assert outputs.embeddings.shape == (3, tapped.side.embedding)
    assert torch.allclose(tapped.side.classifier(outputs.embeddings), plain, atol=1e-6)
    sum(value.square().mean() for value in outputs.features.values()).backward()
    assert next(net.parameters()).grad is not None


def test_nothing_is_hooked_when_nothing_is_asked_for() -> None:
    net = build_model(RESNET)
    outputs = Tapped(net, (3, 32, 32))(torch.randn(2, 3, 32, 32))
    assert outputs.features is None and outputs.embeddings is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_copy_made_before_the_first_call_is_not_listened_to() -> None:
    net = build_model(RESNET)
    tapped = Tapped(net, (3, 32, 32), features=True)
    copied = copy.deepcopy(net)
    first = tapped(torch.zeros(2, 3, 32, 32)).features
    assert not any(module._forward_hooks for module in copied.modules())
    copied(torch.ones(2, 3, 32, 32))
    again = tapped(torch.zeros(2, 3, 32, 32)).features
    assert first is not None and again is not None and torch.equal(first["layer1"], again["layer1"])


def test_features_are_float32_under_autocast() -> None:
    tapped = Tapped(build_model(RESNET), (3, 32, 32), features=True, embeddings=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = tapped(torch.randn(2, 3, 32, 32))
    assert outputs.features is not None and outputs.embeddings is not None
    for value in (outputs.logits, outputs.embeddings, *outputs.features.values()):
        assert value.dtype == torch.float32


def test_named_taps_win_and_unknown_ones_are_refused() -> None:
    net = build_model(RESNET)
    tapped = Tapped(net, (3, 32, 32), features=True, taps=["layer3", "layer1.0.conv1"])
    assert tapped.side.shapes == {"layer3": (64, 8, 8), "layer1.0.conv1": (16, 32, 32)}
    with pytest.raises(ConfigError, match="distill.taps.teacher: CifarResNet has no module 'layr3'(?s:.*)layer3"):
        Tapped(net, (3, 32, 32), features=True, taps=["layr3"], whose="teacher")
    with pytest.raises(ConfigError, match="'fc' of CifarResNet gives neither"):
        Tapped(net, (3, 32, 32), features=True, taps=["fc"])


class Odd(nn.Module):
    """Logits that no linear layer makes, and one activation used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.relu = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 5, 3, 2, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.b(self.relu(self.a(x)))).mean((2, 3))
        return out


def test_a_network_without_a_linear_classifier() -> None:
    assert default_taps(Odd(), (3, 16, 16)) == {"a": (4, 8, 8), "b": (5, 4, 4)}
    assert Tapped(Odd(), (3, 16, 16), features=True).side.embedding == 0
    with pytest.raises(ModelError, match="no linear layer"):
        Tapped(Odd(), (3, 16, 16), embeddings=True)


def test_the_classifier_of_two_heads_is_the_last() -> None:
    net = timm.create_model("deit_tiny_distilled_patch16_224", **VIT)
    assert Tapped(net, (3, 32, 32), embeddings=True).side.classifier is net.head_dist


def test_a_network_without_maps() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(ModelError, match="no feature map"):
        default_taps(net, (3, 2, 2))
    assert Tapped(net, (3, 2, 2), embeddings=True).side.embedding == 12
