"""A user's own profile: used where a name is, and refused with the file and the field where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekd.errors import TargetError
from edgekd.profile.device import Figure
from edgekd.profile.devices import load_device

BOARD = """
title: My board
kind: jetson
architectures: [aarch64]
backend: tensorrt
scheme: tensorrt
compute_capability: 8.7
formats: [fp32, fp16, int8]
tensorrt: {min: "8.6.2", max: "10.3.0", source: the image on it}
jetpack: {min: "6.0", max: "6.2", source: the image on it}
power_modes:
  - {name: MAXN, id: 0, source: nvpmodel -q}
figures:
  memory: {value: 8, unit: GB, source: its data sheet}
"""


def board(tmp_path: Path, key: str = "", value: Any = None) -> str:
    """A file with BOARD in it; what stands at the dotted `key` is `value`, or gone where that is None."""
    record = yaml.safe_load(BOARD)
    *parents, leaf = key.split(".")
    below = record
    for parent in parents:
        below = below[int(parent) if parent.isdigit() else parent]
    below.pop(leaf, None)
    if value is not None:
        below[leaf] = value
    file = tmp_path / "my-board.yaml"
    file.write_text(yaml.safe_dump(record))
    return str(file)


def test_a_file_is_a_target(tmp_path: Path) -> None:
    device = load_device(board(tmp_path))
    assert (device.name, device.title, device.sm) == ("my-board", "My board", "sm_87")
    assert device.figures == {"memory": Figure(8.0, "GB", "its data sheet")}
    assert device.formats == ("fp32", "fp16", "int8") and device.power_modes[0].name == "MAXN"
    assert device.tensorrt is not None and device.tensorrt.max == "10.3.0"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("title", None, "my-board.yaml: title is required\n"),
        ("backend", None, "backend is required\nCompare it with"),
        ("backend", "tensorflow", "backend: Input should be 'onnxruntime-cpu', "),
        ("kind", "phone", "kind: Input should be 'cpu', 'gpu' or 'jetson', got 'phone'"),
        ("name", "other", "name is not a key\nThe target is called my-board"),
        ("figure", 1, "unknown key figure\nDid you mean figures"),
        ("zzz", 1, "unknown key zzz\nKnown keys: title"),
        ("formats", ["fp12"], "formats.0: .*'fp4', got 'fp12'"),
        ("formats", "fp16", "formats: .*tuple, got 'fp16'"),
        ("formats", ["fp32", "fp8"], "formats: fp8 needs compute capability 8.9, not 8.7"),
        ("compute_capability", None, "compute_capability: a jetson needs one"),
        ("compute_capability", "ampere", "compute_capability: .*number.*, got 'ampere'"),
        ("jetpack", None, "jetpack: a jetson needs it"),
        ("jetpack.min", "6.3", "jetpack: min 6.3 is above max 6.2"),
        ("jetpack.min", "six", "jetpack: 'six' is not a version"),
        ("jetpack.source", None, "jetpack.source is required\nWrite the document"),
        ("tensorrt.max", 10.1, "tensorrt.max: .*string, got 10.1\nPut it in quotes"),
        ("tensorrt.from", "8.0", "unknown key tensorrt.from\nKnown keys: min, source, max"),
        ("power_modes.0.source", None, "power_modes.0.source is required"),
        ("power_modes.0.source", " ", "power_modes.0.source: it is empty"),
        ("jetpack.source", "", "jetpack.source: it is empty"),
        ("power_modes.0.nam", "x", "unknown key power_modes.0.nam\\nDid you mean name"),
        ("power_modes.0.watt", 10, "unknown key power_modes.0.watt\nDid you mean watts"),
        ("figures.memory.source", None, "figures.memory.source is required\nWrite the document"),
        ("figures.memory.source", " ", "figures.memory.source: it is empty\nWrite the document"),
        ("figures.memory.unit", "MB", "figures.memory.unit: 'MB' is not GB\nConvert"),
        ("figures.memory.unit", None, "figures.memory.unit is required"),
        ("figures.memory.value", "lots", "figures.memory.value: .*number.*, got 'lots'"),
        ("figures.memory.value", -8, "figures.memory.value: -8 is no memory"),
        ("figures.memory.value", float("inf"), "figures.memory.value: inf is no memory"),
        ("figures.memory", 8, "figures.memory: .*, got 8"),
        ("figures.peak_int", {"value": 1, "unit": "TOP/s", "source": "x"}, "no such figure\nDid you mean peak_int8"),
    ],
)
def test_what_is_wrong_is_named(key: str, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        load_device(board(tmp_path, key, value))
    assert str(tmp_path / "my-board.yaml") in caught.value.what and caught.value.fix


@pytest.mark.parametrize("text", ["", "- a\n", "title: [\n", "1: 2\n"])
def test_a_file_that_is_no_profile(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(TargetError, match=r"bad\.yaml"):
        load_device(str(file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"cannot read .*none\.yaml: No such file"):
        load_device(str(tmp_path / "none.yaml"))
    with pytest.raises(TargetError, match="Is a directory"):
        (tmp_path / "dir.yaml").mkdir()
        load_device(str(tmp_path / "dir.yaml"))
