"""The file itself: what it says of itself, and tensors beside it where one file has no room for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import edgekd
from edgekd.artifacts import ModelSpec, OnnxModel
from edgekd.export import export_fp32
from edgekd.export.metadata import describe
from edgekd.export.onnx import save
from edgekd.models import build_model
from edgekd.profile.backends.ort_cpu import OrtCpuSession

SPEC = ModelSpec("edgekd", "resnet8", 3, (3, 8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))


def test_metadata_is_in_the_file_and_names_no_path(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, metadata = build_model(SPEC), describe(SPEC, "ab12", ["cat", "dög", "owl"])
    for name in ("a.onnx", "b.onnx"):
        export_fp32(model, tmp_path / name, SPEC.input_shape, 17, metadata=metadata)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "a.onnx").read_bytes()
    found = {entry.key: entry.value for entry in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert found == metadata
    assert found["edgekd.version"] == edgekd.__version__ and found["edgekd.fingerprint"] == "ab12"
    assert json.loads(found["edgekd.classes"]) == ["cat", "dög", "owl"]
    assert json.loads(found["edgekd.preprocessing"]) == {
        "size": [8, 8], "channels": 3, "layout": "NCHW", "dtype": "float32",
        "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]
    }  # fmt: skip


def test_unknown_classes_are_left_out() -> None:
    assert "edgekd.classes" not in describe(SPEC, "ab12")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    export_fp32(build_model(SPEC), tmp_path / "whole.onnx", SPEC.input_shape, 18)
    return tmp_path / "whole.onnx"


def test_tensors_beside_the_file(whole: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for _ in range(2):  # writing again replaces them
            save(onnx.load(whole), tmp_path / name / "split.onnx", limit=1000)
        assert {file.name for file in (tmp_path / name).iterdir()} == {"split.onnx", "split.onnx.data"}
    files = [[(tmp_path / name / f"split.onnx{suffix}").read_bytes() for suffix in ("", ".data")] for name in "ab"]
    assert files[0] == files[1]
    assert len(files[0][0]) < whole.stat().st_size / 4
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    logits = [
        OrtCpuSession(str(path), 1).infer({"images": images})["logits"]
        for path in (whole, tmp_path / "a" / "split.onnx")
    ]
    assert np.array_equal(*logits)


def test_they_count_in_the_fingerprint(whole: Path, tmp_path: Path) -> None:
    save(onnx.load(whole), tmp_path / "split.onnx", limit=1000)
    model = OnnxModel(str(tmp_path / "split.onnx"), "onnx-fp32", "fp32", 18, SPEC.input_shape)
    before, data = model.fingerprint(), tmp_path / "split.onnx.data"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    assert model.fingerprint() != before


def test_a_broken_graph_is_not_written(whole: Path, tmp_path: Path) -> None:
    model = onnx.load(whole)
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(onnx.checker.ValidationError):
        save(model, tmp_path / "broken.onnx")
    assert not (tmp_path / "broken.onnx").exists()
