from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.artifacts import OnnxModel
from edgekd.errors import BackendError
from edgekd.profile import predict
from edgekd.profile.device import Device


@pytest.fixture
def pooling(tmp_path: Path) -> Path:
    """logits = mean over each channel, so that what went in can be read off what comes out."""
    nodes = [helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=0)]
    graph = helper.make_graph(
        nodes,
        "pooling",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 4, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    path = tmp_path / "pooling.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    )
    return path


def test_predict_normalises_and_keeps_order_across_batches(pooling: Path, device: Device) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), np.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    logits = predict(pooling, images, mean, std, device, batch=3)
    expected = ((images / 255 - mean) / std).mean(axis=(1, 2))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_predict_says_which_shapes_a_graph_refused(pooling: Path, device: Device) -> None:
    with pytest.raises(BackendError, match=r"\(2, 3, 5, 5\)"):
        predict(pooling, np.zeros((2, 5, 5, 3), np.uint8), (0,) * 3, (1,) * 3, device)


def test_predict_refuses_what_is_no_graph(broken: OnnxModel, device: Device) -> None:
    with pytest.raises(BackendError, match="cannot load broken.onnx"):
        predict(broken, np.zeros((1, 8, 8, 3), np.uint8), (0,) * 3, (1,) * 3, device)
