"""`edgekd inspect`: files told apart by content, layers with their precision, and what is none of them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from typer.testing import CliRunner

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.cli import app
from edgekd.describe import describe
from edgekd.errors import BundleError, ModelError


def edgekd(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def constant(name: str, value: Any, dtype: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    """An INT8 convolution with a transposed-weight product behind it, a float one, and a graph's usual rest."""
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"], "dq"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wdq"], "wdq", axis=0),
        helper.make_node("Conv", ["dq", "wdq", "b"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "v"], ["d"], "float_conv"),
        helper.make_node("Flatten", ["d"], ["f"], "flatten"),
        helper.make_node("QuantizeLinear", ["f", "s", "z"], ["fq"], "fq"),
        helper.make_node("DequantizeLinear", ["fq", "s", "z"], ["fdq"], "fdq"),
        helper.make_node("DequantizeLinear", ["m", "s", "z"], ["mdq"], "mdq"),
        helper.make_node("Transpose", ["mdq"], ["mt"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["fdq", "mt"], ["logits"], "product"),
    ]
    tensors = [
        constant("s", 0.1),
        constant("z", 0, np.int8),
        constant("w", np.ones((2, 3, 1, 1)), np.int8),
        constant("ws", [0.1, 0.2]),
        constant("wz", [0, 0], np.int8),
        constant("b", [0, 0]),
        constant("v", np.ones((2, 2, 1, 1))),
        constant("m", np.ones((5, 8)), np.int8),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 2, 2])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])
    graph = helper.make_graph(nodes, "g", [images], [logits], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="by hand")
    entry = model.metadata_props.add()
    entry.key, entry.value = "fingerprint", "abc"
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_a_graph(quantized: Path) -> None:
    record = describe(quantized)
    assert (record["kind"], record["opset"], record["ir_version"]) == ("onnx", 18, 9)
    assert record["inputs"] == [{"name": "images", "dtype": "float32", "shape": [None, 3, 2, 2]}]
    assert record["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [None, 5]}]
    assert record["parameters"] == 6 + 2 + 4 + 40
    layers = {layer["name"]: layer for layer in record["layers"]}
    assert layers["conv"] == {"name": "conv", "op": "Conv", "precision": "int8", "weights": [2, 3, 1, 1]}
    assert layers["float_conv"] == {"name": "float_conv", "op": "Conv", "precision": "float32", "weights": [2, 2, 1, 1]}
    assert layers["product"] == {"name": "product", "op": "MatMul", "precision": "int8", "weights": [5, 8]}
    assert layers["relu"]["precision"] == "float32" and "weights" not in layers["relu"]
    assert record["qdq"] == {
        "QuantizeLinear": 2,
        "DequantizeLinear": 4,
        "weights": 2,
        "types": {"int8": 4},
        "per_channel": 1,
    }
    assert record["provenance"] == {"producer": "by hand", "fingerprint": "abc"}
    assert record["external"] == [] and record["custom_domains"] == []


def test_printed(quantized: Path) -> None:
    done = edgekd("inspect", quantized)
    assert done.exit_code == 0
    for words in ("images float32 N x 3 x 2 x 2", "float_conv", "DequantizeLinear   4", "fingerprint"):
        assert words in done.stdout, words
    assert json.loads(edgekd("inspect", quantized, "--json").stdout)["opset"] == 18


def test_fp16_and_operators_of_another_domain(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Mystery", ["c"], ["y"], "odd", domain="com.example"),
    ]
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, s) for n, s in (("x", [1, 1, 2, 2]), ("y", None))]
    weights = [constant("w", np.ones((1, 1, 1, 1)), np.float16)]
    graph = helper.make_graph(nodes, "g", io[:1], io[1:], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "m.onnx")
    record = describe(tmp_path / "m.onnx")
    assert record["custom_domains"] == ["com.example"] and record["opset"] == 17
    assert [layer["precision"] for layer in record["layers"]] == ["float16", "float16"]


def test_weights_outside_the_file(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [constant("w", np.ones((64, 64)))],
    )
    model = helper.make_model(graph)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    (tmp_path / "m.data").unlink()
    record = describe(tmp_path / "m.onnx")
    assert record["external"] == ["m.data"] and record["parameters"] == 64 * 64


def plan(path: Path, magic: bytes, version: tuple[int, ...], mask: int = 0) -> None:
    """The header of an engine, as TensorRT-RTX 1.7.1.116 writes it, and a few bytes behind it."""
    path.write_bytes(magic + struct.pack("<IQQ", 0, 2, 40) + bytes(version) + magic + struct.pack("<I", mask) + b"code")


def test_an_engine(tmp_path: Path) -> None:
    file = tmp_path / "m.plan"
    plan(file, b"vtrt", (1, 7, 1, 116), mask=8)
    record = describe(file)
    assert (record["kind"], record["runtime"], record["version"]) == ("engine", "TensorRT-RTX", "1.7.1.116")
    assert record["compute_capabilities"] == ["sm_89"] and "provenance" not in record
    (tmp_path / "m.plan.json").write_text('{"compute_capability": "8.7"}')
    plan(file, b"ftrt", (10, 3, 0, 30))
    record = describe(file)
    assert (record["runtime"], record["version"]) == ("TensorRT", "10.3.0.30")
    assert record["provenance"] == {"compute_capability": "8.7"}
    assert "10.3.0.30" in edgekd("inspect", file).stdout
    file.write_bytes(file.read_bytes()[:24])
    done = edgekd("inspect", file)
    assert done.exit_code == 2 and "cut off after 24 bytes" in done.stderr


@pytest.mark.trt
def test_an_engine_that_was_really_built(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'edgekd[tensorrt-rtx]'")
    from edgekd.export.engine import build_engine
    from edgekd.export.tensorrt import BuildOptions

    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("x", "y")]
    weights = [constant("w", np.ones((4, 4, 1, 1)))]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"], "conv")], "g", io[:1], io[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    made = build_engine(tmp_path / "m.onnx", "rtx-4090", tmp_path / "out", BuildOptions(), builder="tensorrt-rtx")
    record = describe(Path(made["path"]))
    assert (record["runtime"], record["compute_capabilities"]) == ("TensorRT-RTX", ["sm_89"])
    assert record["version"] == made["versions"]["tensorrt-rtx"] and record["bytes"] == made["bytes"]
    assert record["provenance"]["builder"] == "tensorrt-rtx"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    out = tmp_path / "checkpoint"
    out.mkdir()
    save_file({"w": np.zeros((2, 3), np.float32), "n": np.zeros((), np.int64)}, out / "model.safetensors")
    Checkpoint(str(out), ModelSpec("edgekd", "resnet8", 10, (1, 8, 8)), {"val_top1": 0.5}).save()
    return out


def test_a_checkpoint(checkpoint: Path) -> None:
    record = describe(checkpoint)
    assert record["kind"] == "checkpoint" and record["spec"]["name"] == "resnet8"
    assert record["tensors"] == [
        {"name": "n", "dtype": "i64", "shape": []},
        {"name": "w", "dtype": "f32", "shape": [2, 3]},
    ]
    assert record["numbers"] == {"i64": 1, "f32": 6} and record["metrics"] == {"val_top1": 0.5}
    assert describe(checkpoint / "model.safetensors") == record
    assert "resnet8" in edgekd("inspect", checkpoint).stdout
    (checkpoint / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="no safetensors file"):
        describe(checkpoint)


def test_a_bundle(tmp_path: Path) -> None:
    manifest = {
        "target": {"name": "x86-cpu"},
        "requires": {"compute_capability": None},
        "default": "m",
        "models": [{"name": "m", "precision": "int8", "scheme": "ort", "opset": 18, "path": "models/m/1/model.onnx"}],
        "provenance": {"export": "abc"},
        "versions": {"edgekd": "0.1.0"},
        "files": {"a": {"sha256": "0" * 64, "bytes": 5}, "b": {"sha256": "0" * 64, "bytes": 6}},
    }
    root = tmp_path / "bundle"
    root.mkdir()
    (root / "MANIFEST.json").write_text(json.dumps(manifest))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(root / "MANIFEST.json", "MANIFEST.json")
    for path in (root, tmp_path / "b.zip"):
        record = describe(path)
        assert (record["kind"], record["files"], record["bytes"], record["default"]) == ("bundle", 2, 11, "m")
        assert "models/m/1/model.onnx" in edgekd("inspect", path).stdout
    (root / "MANIFEST.json").write_text("{}")
    with pytest.raises(BundleError, match="no bundle"):
        describe(root)


@pytest.mark.parametrize("content", [b"", b"not a graph at all", b"PK\x03\x04"])
def test_none_of_them(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file.onnx"
    file.write_bytes(content)
    done = edgekd("inspect", file)
    assert done.exit_code == 2 and "file.onnx" in done.stderr
    for path in (tmp_path / "nothing", tmp_path):
        assert edgekd("inspect", path).exit_code == 2


def test_torch_is_not_needed(quantized: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom edgekd.describe import describe\n"
        "describe(Path(sys.argv[1]))\nsys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, quantized])
    assert done.returncode == 0
