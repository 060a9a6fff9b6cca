"""What a graph takes and gives: pixels instead of floats, outputs beside the logits, a fixed batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

from edgekd.artifacts import ModelSpec
from edgekd.config import ExportConfig, load_config, load_export_config
from edgekd.errors import ConfigError
from edgekd.export import export_fp32
from edgekd.export.metadata import describe
from edgekd.export.signature import _zoom, sign
from edgekd.models import build_model
from edgekd.profile import load_device, predict
from edgekd.profile.backends.ort_cpu import OrtCpuSession

SPEC = ModelSpec("edgekd", "resnet8", 5, (3, 8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)


def exported(path: Path, opset: int = 18, **options: Any) -> OrtCpuSession:
    torch.manual_seed(0)
    export_fp32(build_model(SPEC), path, SPEC.input_shape, opset)
    sign(path, SPEC, ExportConfig(**options))
    return OrtCpuSession(str(path), 1)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    exported(tmp_path / "plain.onnx")
    return tmp_path / "plain.onnx"


def logits_of(path: Path, pixels: Any = PIXELS) -> Any:
    return predict(path, pixels, SPEC.mean, SPEC.std, load_device("x86-cpu"), batch=3)


@pytest.mark.parametrize("opset", [13, 18])
def test_pixels_are_normalised_within(plain: Path, tmp_path: Path, opset: int) -> None:
    session = exported(tmp_path / "pixels.onnx", opset, pixels=True)
    assert session.inputs == {"images": (np.dtype(np.uint8), (None, 8, 8, 3))}
    np.testing.assert_allclose(logits_of(tmp_path / "pixels.onnx"), logits_of(plain), atol=1e-5)
    assert next(e.version for e in onnx.load(tmp_path / "pixels.onnx").opset_import if not e.domain) == opset


@pytest.mark.parametrize("side", [5, 8, 11, 24])
def test_pixels_of_another_size_are_resized_as_torch_does(plain: Path, tmp_path: Path, side: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, side, side, 3), np.uint8)
    session = exported(tmp_path / "resize.onnx", pixels=True, resize=side)
    assert session.inputs["images"][1] == (None, side, side, 3)
    resized = F.interpolate(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), size=(8, 8), mode="bilinear")
    mean, std = (torch.tensor(values)[:, None, None] for values in (SPEC.mean, SPEC.std))
    expected = OrtCpuSession(str(plain), 1).infer({"images": ((resized / 255 - mean) / std).numpy()})["logits"]
    np.testing.assert_allclose(session.infer({"images": pixels})["logits"], expected, atol=2e-4)


@pytest.mark.parametrize(("given", "wanted"), [(50, 32), (224, 32), (49, 7), (7, 49), (1080, 224), (96, 96)])
def test_a_zoom_gives_the_pixels_that_are_wanted(given: int, wanted: int) -> None:
    factor = _zoom(given, wanted)
    assert int(np.floor(np.float32(given) * factor)) == wanted and abs(factor * given / wanted - 1) < 1e-6


def test_outputs_beside_the_logits(plain: Path, tmp_path: Path) -> None:
    session = exported(tmp_path / "all.onnx", pixels=True, softmax=True, top_k=2)
    found = session.infer({"images": PIXELS})
    assert list(found) == ["logits", "probabilities", "classes", "scores"]
    np.testing.assert_allclose(found["logits"], logits_of(plain), atol=1e-5)
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, atol=1e-6)
    order = np.argsort(-found["logits"], axis=1)[:, :2]
    assert np.array_equal(found["classes"], order) and found["classes"].dtype == np.int64
    np.testing.assert_array_equal(found["scores"], np.take_along_axis(found["probabilities"], order, axis=1))
    found = exported(tmp_path / "scores.onnx", top_k=9).infer({"images": np.zeros((2, 3, 8, 8), np.float32)})
    assert found["scores"].shape == (2, 5)  # no more than there are classes
    np.testing.assert_array_equal(found["scores"], -np.sort(-found["logits"], axis=1))


def test_a_fixed_batch(plain: Path, tmp_path: Path) -> None:
    session = exported(tmp_path / "fixed.onnx", batch=4, softmax=True)
    assert session.inputs["images"][1] == (4, 3, 8, 8)
    shapes = [
        [side.dim_value for side in v.type.tensor_type.shape.dim]
        for v in onnx.load(tmp_path / "fixed.onnx").graph.output
    ]
    assert shapes == [[4, 5], [4, 5]]
    np.testing.assert_allclose(logits_of(tmp_path / "fixed.onnx"), logits_of(plain), atol=1e-5)


def test_the_file_says_so() -> None:
    found = json.loads(describe(SPEC, "ab", config=ExportConfig(pixels=True, resize=16))["edgekd.preprocessing"])
    assert found == {"size": [16, 16], "channels": 3, "layout": "NHWC", "dtype": "uint8"}


def test_what_does_not_go_together() -> None:
    with pytest.raises(ConfigError, match=r"export\.resize: the graph resizes pixels") as error:
        load_export_config(["export.resize=16"])
    assert error.value.fix == "Set pixels to true too."
    with pytest.raises(ConfigError, match=r"^export\.batch: the graph takes 4 images a call") as error:
        load_config(None, ["data=digits", "target=x86-cpu", "export.batch=4"])
    assert error.value.fix == "Set profile.batches to [4]."
    with pytest.raises(ConfigError, match="distill: a checkpoint's export"):
        load_export_config(["distill.epochs=4"])
