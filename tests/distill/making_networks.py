"""Small networks, data and teachers, for the tests of methods that run whole networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.artifacts import ModelSpec
from edgekd.data import Dataset, load_dataset
from edgekd.models import build_random
from edgekd.models.cifar import CifarResNet

SHAPE, CLASSES = (3, 16, 16), 5


def resnet(*widths: int) -> CifarResNet:
    """To be trained, of 8 channels or more: the gradient of torch's 1x1 convolution with stride 2 over 4 channels,
    stored channels last, writes past its memory."""
    torch.manual_seed(sum(widths))
    return CifarResNet(CLASSES, (1, 1, 1), widths).eval()


def vit() -> nn.Module:
    torch.manual_seed(0)
    size = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 2}
    net: nn.Module = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, **size)
    return net.eval()


def digits(images: int) -> Dataset:
    """So many to train on, 40 to watch and 100 to test."""
    whole = load_dataset("digits")
    return replace(whole, train=whole.train[slice(images)], val=whole.val[slice(40)], test=whole.test[slice(100)])


def random_teacher(data: Dataset, directory: Path) -> ModelSpec:
    """A ResNet-8 that nobody has trained, its weights under `directory`."""
    spec = ModelSpec("edgekd", "resnet8", 10, data.input_shape, mean=data.mean, std=data.std)
    file = directory / "t.safetensors"
    save_file(build_random(spec, 1).state_dict(), file)
    return replace(spec, weights=str(file))
