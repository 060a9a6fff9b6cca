from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekd.profile.operators import Add, Conv, Head, Input, build_copies, build_network, cifar_resnet, operators


def executed(graph: bytes, directory: Path) -> Counter[str]:
    """Operators of the graph that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(directory / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(directory / "optimised.onnx").graph.node)


def test_a_residual_network_is_opened_into_its_operators() -> None:
    kinds = Counter(type(op).__name__ for op in operators(cifar_resnet((3, 3, 3), (16, 32, 64), (3, 32, 32), 10)))
    assert kinds == {"Input": 1, "Conv": 21, "Add": 9, "Head": 1}  # ResNet-20 and two 1x1 shortcuts
    assert operators([Input(3, 9, 9), Head(3, 9, 9, 2)]) == [Input(3, 9, 9), Head(3, 9, 9, 2)]


def test_every_operator_of_an_int8_network_is_fused(tmp_path: Path) -> None:
    ran = executed(build_network(cifar_resnet((2, 1, 2), (16, 24, 32), (3, 32, 32), 10), "int8"), tmp_path)
    assert ran["QLinearConv"] == 1 + 2 * 5 + 2 and ran["QLinearAdd"] == 5 and ran["QGemm"] == 1
    assert ran["Conv"] == ran["Add"] == ran["Relu"] == 0


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_network_runs_at_any_batch(precision: Any) -> None:
    graph = build_network(cifar_resnet((1, 1, 1), (8, 8, 16), (1, 9, 9), 7), precision)
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((3, 1, 9, 9)).astype(np.float32)
    (logits,) = session.run(["logits"], {"images": images})
    assert logits.shape == (3, 7) and np.isfinite(logits).all()


@pytest.mark.parametrize(
    "op, fused",
    [
        (Conv(16, 16, 3, 1, 8, 8), "QLinearConv"),
        (Conv(16, 24, 3, 2, 8, 8), "QLinearConv"),
        (Conv(16, 24, 1, 2, 8, 8, relu=False), "QLinearConv"),
        (Conv(16, 16, 3, 1, 8, 8, groups=16), "QLinearConv"),
        (Add(16, 8, 8), "QLinearAdd"),
        (Head(16, 8, 8, 10), "QGemm"),
    ],
)
def test_copies_are_all_run_and_all_int8(op: Any, fused: str, tmp_path: Path) -> None:
    few, many = (executed(build_copies(op, copies, "int8"), tmp_path) for copies in (2, 6))
    assert few[fused] == 2 and many[fused] == 6
    assert not {"Conv", "Add", "Gemm"} & set(many)
    if not isinstance(op, Head):
        assert "DequantizeLinear" not in many  # nothing but the operator and the scrap


def test_an_addition_cannot_stand_alone() -> None:
    with pytest.raises(TypeError, match="belongs to a Residual"):
        build_network([Input(3, 8, 8), Add(3, 8, 8)], "int8")
