from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.artifacts import OnnxModel
from edgekd.profile.device import Device
from edgekd.profile.devices import load_device
from edgekd.profile.graphs import build_network
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace


@pytest.fixture(scope="session")
def device() -> Device:
    return load_device("x86-cpu")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[OnnxModel]:
    """A ResNet-8 for 8x8 images, FP32 and INT8."""
    directory = tmp_path_factory.mktemp("onnx")
    network = CifarResNetSpace(5, (3, 8, 8)).network(Genotype(depths=(1, 1, 1), widths=(8, 16, 24)))
    made = []
    for precision in ("fp32", "int8"):
        path = directory / f"student-{precision}.onnx"
        path.write_bytes(build_network(network, precision))
        made.append(OnnxModel(str(path), f"onnx-{precision}", precision, 18, (3, 8, 8)))
    return made


@pytest.fixture
def broken(tmp_path: Path) -> OnnxModel:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    return OnnxModel(str(path), "onnx-fp32", "fp32", 18, (3, 8, 8))
