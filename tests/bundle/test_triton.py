"""config.pbtxt: names, dims and batching, and, where Triton's own schema is installed, that it takes the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.bundle.triton import model_config

MODEL: dict[str, Any] = {
    "name": "student-int8",
    "inputs": [{"name": "images", "dtype": "float32", "shape": [None, 3, 32, 32]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": [None, 10]}],
}
FIXED: dict[str, Any] = {
    "name": 'odd "name"',
    "inputs": [{"name": "pixels", "dtype": "uint8", "shape": [1, None, 32, 3]}],
    "outputs": [
        {"name": "classes", "dtype": "int64", "shape": [1, 5]},
        {"name": "scores", "dtype": "float16", "shape": [1, 5]},
    ],
}


@pytest.fixture(scope="module")
def schema() -> Any:
    reason = "Triton's protobuf schema is not installed: pip install 'tritonclient[grpc]'"
    return pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=reason)


def parse(schema: Any, text: str) -> Any:
    """Raises where a field or a value is not of the schema."""
    from google.protobuf import text_format

    return text_format.Parse(text, schema.ModelConfig())


def test_text() -> None:
    text = model_config(MODEL, "onnxruntime", 32, gpu=False)
    assert 'name: "student-int8"\nbackend: "onnxruntime"\ndefault_model_filename: "model.onnx"\n' in text
    assert "max_batch_size: 32" in text and "dims: [3, 32, 32]" in text and "KIND_CPU" in text
    text = model_config(FIXED, "tensorrt", 32, gpu=True)
    assert "max_batch_size: 0" in text and "dims: [1, -1, 32, 3]" in text and "dynamic_batching" not in text
    assert "model.plan" in text and "KIND_GPU" in text


def test_dynamic_batch(schema: Any) -> None:
    config = parse(schema, model_config(MODEL, "onnxruntime", 32, gpu=False))
    assert (config.name, config.backend, config.max_batch_size) == ("student-int8", "onnxruntime", 32)
    (images,), (logits,) = config.input, config.output
    assert (images.name, images.data_type, list(images.dims)) == ("images", schema.TYPE_FP32, [3, 32, 32])
    assert (logits.name, logits.data_type, list(logits.dims)) == ("logits", schema.TYPE_FP32, [10])
    assert logits.label_filename == "labels.txt" and config.HasField("dynamic_batching")
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, schema.ModelInstanceGroup.KIND_CPU)


def test_fixed_batch(schema: Any) -> None:
    config = parse(schema, model_config(FIXED, "tensorrt", 32, gpu=True))
    assert config.name == FIXED["name"] and config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert [(o.name, o.data_type) for o in config.output] == [
        ("classes", schema.TYPE_INT64),
        ("scores", schema.TYPE_FP16),
    ]
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU


def test_a_bundles_repository(schema: Any, written: Path, written_for_jetson: Path) -> None:
    for root, backend in ((written, "onnxruntime"), (written_for_jetson, "tensorrt")):
        models = sorted((root / "models").iterdir())
        assert [folder.name for folder in models] == ["student-fp32", "student-int8"]
        for folder in models:
            config = parse(schema, (folder / "config.pbtxt").read_text())
            assert (config.name, config.backend) == (folder.name, backend)
            assert len((folder / config.output[0].label_filename).read_text().splitlines()) == config.output[0].dims[0]
            assert (folder / "1" / "model.onnx").is_file()
