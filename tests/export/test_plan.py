"""The header of an engine, read without a GPU; engines that nothing should be asked to load."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines import plan

from edgekd.errors import ModelError
from edgekd.export.tensorrt import PlanHeader, read_header, require_loadable


def test_headers_of_both_kinds(tmp_path: Path) -> None:
    full, rtx = plan(tmp_path / "a", (8, 5, 2, 2)), plan(tmp_path / "b", (1, 7, 1, 116), sms=4 | 8)
    assert read_header(full) == PlanHeader("tensorrt", "8.5.2.2", 100, None)
    assert read_header(rtx) == PlanHeader("tensorrt-rtx", "1.7.1.116", 100, (86, 89))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\3\4", "is not a TensorRT engine: it begins with b'PK"),
        (b"", "is not a TensorRT engine"),
        (b"ftrt" + b"\0" * 10, "is cut off after 14 bytes"),
        (b"ftrt" + b"\7" * 40, "is an engine in serialization"),
    ],
)
def test_other_files(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.engine").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_header(tmp_path / "x.engine")
    with pytest.raises(ModelError, match="does not exist"):
        read_header(tmp_path / "y.engine")


def test_a_truncated_engine(tmp_path: Path) -> None:
    file = plan(tmp_path / "x.engine", size=500)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match="its header says 500 bytes, and it has 499"):
        require_loadable(file, "tensorrt", "10.3.0", 87)


@pytest.mark.parametrize(
    ("built", "here", "compatible", "loads"),
    [
        ((10, 3, 0, 30), "10.3.0", False, True),
        ((10, 3, 0, 30), "10.3.0.30", False, True),
        ((10, 3, 0, 26), "10.3.0.30", False, False),
        ((8, 5, 2, 2), "10.3.0", False, False),
        ((10, 3, 0, 30), "10.13.0", True, True),
        ((10, 13, 0, 35), "10.3.0", True, False),
        ((8, 6, 1, 6), "10.3.0", True, True),
        ((8, 5, 2, 2), "8.6.1", True, False),  # before compatible engines were
        ((10, 3, 0, 30), "11.4.0", True, True),
        ((8, 6, 1, 6), "11.4.0", True, False),
        ((11, 0, 0, 114), "10.16.0", True, False),
    ],
)
def test_versions(built: tuple[int, ...], here: str, compatible: bool, loads: bool, tmp_path: Path) -> None:
    file = plan(tmp_path / "x.engine", built)
    if loads:
        assert require_loadable(file, "tensorrt", here, 87, version_compatible=compatible).bytes == 100
        return
    with pytest.raises(ModelError, match=f"was built by tensorrt {'.'.join(map(str, built))}, and {here} is here"):
        require_loadable(file, "tensorrt", here, 87, version_compatible=compatible)


def test_another_gpu_and_another_runtime(tmp_path: Path) -> None:
    file = plan(tmp_path / "x.engine", (1, 7, 1, 116), sms=4)
    assert require_loadable(file, "tensorrt-rtx", "1.7.1.116", 86).compute_capabilities == (86,)
    with pytest.raises(ModelError, match="was built for sm_86, and this is sm_89"):
        require_loadable(file, "tensorrt-rtx", "1.7.1.116", 89)
    with pytest.raises(ModelError, match="is an engine of tensorrt-rtx 1.7.1.116, and tensorrt is here"):
        require_loadable(file, "tensorrt", "10.3.0", 86)
