"""One stage on an artifact, as the command line calls it: quantize, export and profile a checkpoint."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner

from edgekd.artifacts import Checkpoint, ModelSpec, OnnxModel
from edgekd.cli import app
from edgekd.errors import ModelError
from edgekd.standalone import read_onnx

DIGITS = ("--data", "digits", "--target", "x86-cpu")


def edgekd(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained ResNet-8 for the digits."""
    import torch
    from safetensors.torch import save_file

    from edgekd.models import build_model

    path = tmp_path_factory.mktemp("fp32")
    spec = ModelSpec("edgekd", "resnet8", 10, (1, 8, 8), mean=(0.3,), std=(0.4,))
    torch.manual_seed(0)
    save_file(build_model(spec).state_dict(), path / "model.safetensors")
    Checkpoint(str(path), spec).save()
    return path


@pytest.fixture(scope="module")
def quantized(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8")
    sets = ("--set", "quantize.qad.epochs=0", "--set", "quantize.calibration=64")
    done = edgekd("quantize", checkpoint, *DIGITS, *sets, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out / "quantize")
    return out / "quantize"


def test_quantize_a_checkpoint(quantized: Path) -> None:
    assert Checkpoint.load(quantized).scheme == "ort"
    assert (quantized / "stage.json").is_file()


def test_a_quantized_checkpoint_is_not_quantized_again(quantized: Path, tmp_path: Path) -> None:
    done = edgekd("quantize", quantized, *DIGITS, "--out", tmp_path / "again")
    assert done.exit_code == 2 and "quantized already" in done.stderr and not (tmp_path / "again").exists()


def test_the_data_must_fit(checkpoint: Path, tmp_path: Path) -> None:
    done = edgekd("quantize", checkpoint, *DIGITS, "--set", "image_size=16", "--out", tmp_path / "out")
    assert done.exit_code == 2 and "(1, 16, 16)" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_export_then_profile(precision: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = request.getfixturevalue("checkpoint" if precision == "fp32" else "quantized")
    done = edgekd("export", source, "--out", tmp_path / "onnx", "--json")
    assert done.exit_code == 0, done.output
    model = OnnxModel.from_json(json.loads(done.stdout))
    assert model.path == str(tmp_path / "onnx" / "export" / f"student-{precision}.onnx")
    found = read_onnx(Path(model.path))
    assert (found.precision, found.input_shape) == (precision, (1, 8, 8))

    words = ("profile", model.path, "--target", "x86-cpu", "--batch", 1, "--batch", 4, "--warmup", 1, "--seconds", 0)
    done = edgekd(*words, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [(row["batch"], row["n"], row["precision"]) for row in rows] == [(1, 200, precision), (4, 200, precision)]
    assert all(0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] for row in rows)


@pytest.mark.parametrize(
    ("target", "opset", "exported"),
    [("jetson-nano", None, 13), ("jetson-agx-orin-64gb", None, 17), ("rtx-4090", 19, 19), ("x86-cpu", None, 18)],
)
def test_the_target_decides_the_opset(
    target: str, opset: int | None, exported: int, checkpoint: Path, tmp_path: Path
) -> None:
    words = ["export", checkpoint, "--target", target, "--out", tmp_path / "onnx", "--json"]
    done = edgekd(*words, *(["--opset", opset] if opset else []))
    assert done.exit_code == 0, done.output
    model = json.loads(done.stdout)
    graph = onnx.load(model["path"])
    assert model["opset"] == graph.opset_import[0].version == exported
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert metadata["edgekd.fingerprint"] == Checkpoint.load(checkpoint).fingerprint()
    assert json.loads(metadata["edgekd.preprocessing"])["size"] == [8, 8]
    assert edgekd(*words, *(["--opset", opset] if opset else [])).exit_code == 0  # cached


def test_a_target_and_its_opset_must_agree(checkpoint: Path, quantized: Path, tmp_path: Path) -> None:
    words = ["--target", "jetson-nano", "--out", tmp_path / "out"]
    done = edgekd("export", checkpoint, *words, "--opset", 17)
    assert done.exit_code == 2 and "export.opset: 17, and TensorRT 8.2.1" in done.stderr
    done = edgekd("export", quantized, *words)
    assert done.exit_code == 2 and "quantize.scheme: ort is for onnxruntime" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_engine_is_not_profiled_as_a_graph(tmp_path: Path) -> None:
    file = tmp_path / "student.engine"
    file.write_bytes((b"ftrt" + struct.pack("<IQQ", 0, 1, 100) + bytes([8, 5, 2, 2])).ljust(100, b"\0"))
    with pytest.raises(ModelError, match="is an engine of tensorrt 8.5.2.2"):
        read_onnx(file)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ModelError, match="its header says 100 bytes, and it has 50"):
        read_onnx(file)


@pytest.mark.parametrize("content", [None, b"", b"not a graph at all"])
def test_not_an_onnx_file(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match="model.onnx"):
        read_onnx(file)
    assert edgekd("profile", file, "--target", "x86-cpu").exit_code == 2


def test_out_is_asked_for(checkpoint: Path) -> None:
    for command in ("quantize", "export"):
        done = edgekd(command, checkpoint)
        assert done.exit_code == 2 and "--out" in done.stderr
