"""The opset of a target: what its TensorRT parses and the scheme needs."""

from __future__ import annotations

import pytest

from edgekd.catalog import parsed_opset
from edgekd.errors import ConfigError
from edgekd.profile.abilities import opset_for, schemes
from edgekd.profile.devices import load_device


@pytest.mark.parametrize(
    ("version", "opset"),
    [
        ((8, 0, 1), 13),
        ((8, 2, 1), 13),
        ((8, 4, 1), 17),
        ((8, 6, 2), 17),
        ((10, 3, 0), 20),
        ((10, 13), 24),
        ((11, 4), 24),
    ],
)
def test_what_tensorrt_parses(version: tuple[int, ...], opset: int) -> None:
    assert parsed_opset(version) == opset


@pytest.mark.parametrize(
    ("target", "scheme", "opset"),
    [
        ("x86-cpu", "ort", 18),
        ("jetson-nano", "fp16", 13),  # JetPack 4
        ("jetson-agx-xavier", "tensorrt", 13),  # JetPack 4 and 5
        ("jetson-orin-nano", None, 17),  # JetPack 5 and later
        ("jetson-orin-nano", "tensorrt", 17),
        ("jetson-orin-nano", "int8+fp16", 19),  # FP16 scales: JetPack 6 and later
        ("jetson-orin-nano-super", "tensorrt", 18),  # JetPack 6.2 and later
        ("jetson-thor-t5000", "fp8", 19),
        ("rtx-4090", "tensorrt", 18),  # no JetPack: whoever uses it chooses the TensorRT
    ],
)
def test_a_target_decides(target: str, scheme: str | None, opset: int) -> None:
    assert opset_for(load_device(target), scheme) == opset


def test_without_a_target() -> None:
    assert (opset_for(None, None), opset_for(None, "fp8"), opset_for(None, "tensorrt", 13)) == (18, 19, 13)


@pytest.mark.parametrize(
    ("target", "scheme", "wanted", "message"),
    [
        ("rtx-4090", "fp8", 18, "export.opset: 18, and the scheme fp8 needs 19"),
        ("jetson-agx-xavier", "tensorrt", 18, "export.opset: 18, and TensorRT 8.5.2, the newest on jetson-agx-xavier"),
        ("jetson-agx-xavier", "int8[+]fp16", None, "int8[+]fp16 needs opset 19, and TensorRT 8.5.2, .* up to 17"),
    ],
)
def test_contradictions_are_one_error(target: str, scheme: str, wanted: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        opset_for(load_device(target), scheme.replace("[+]", "+"), wanted)


def test_a_scheme_its_tensorrt_cannot_parse_is_not_offered() -> None:
    assert schemes(load_device("jetson-agx-xavier")) == ["tensorrt", "fp16"]
    assert "int8+fp16" in schemes(load_device("jetson-orin-nano"))
