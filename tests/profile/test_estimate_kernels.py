"""What fuses, what is free, and what is counted, by hand; and the graphs that cannot be counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_graphs import graph, node, two_layers

from edgekd.artifacts import OnnxModel
from edgekd.errors import ModelError
from edgekd.profile.estimate.kernels import network, read_network

CONV = {"w": (4, 4, 1, 1)}


def launched(model: Any) -> list[str]:
    return ["+".join(kernel.operators) for kernel in network(model).kernels]


def test_two_layers_by_hand() -> None:
    first, second = network(two_layers()).kernels
    assert (first.operators, first.kind, first.macs) == (["Conv", "Relu"], "matrix", 8 * 8 * 16 * 4 * 9)
    assert (first.numbers, first.weights) == (4 * 64 + 16 * 64, 16 * 36 + 16)
    assert (second.operators, second.macs) == (["Conv"], 4 * 4 * 8 * 16)
    assert (second.numbers, second.weights) == (16 * 64 + 8 * 16, 8 * 16 + 8)


def test_the_batch_multiplies_what_moves_but_not_the_weights() -> None:
    one, three = network(two_layers()), network(two_layers(), batch=3)
    assert three.macs == 3 * one.macs and three.image == (3, 4, 8, 8)
    assert [k.numbers for k in three.kernels] == [3 * k.numbers for k in one.kernels]
    assert [k.weights for k in three.kernels] == [k.weights for k in one.kernels]


def test_a_residual_addition_joins_the_later_convolution() -> None:
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "r"), node("Conv", "r w", "b"), node("Add", "r b", "s")]
    model = graph([*nodes, node("Relu", "s", "y")], CONV)
    assert launched(model) == ["Conv+Relu", "Conv+Add+Relu"]
    assert network(model).kernels[1].numbers == 2 * 4 * 64  # the skip is its input too: read once, written once


def test_what_others_read_before_the_activation_keeps_it_apart() -> None:
    """A pool wants the convolution's own output, so the ReLU is a kernel."""
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "y"), node("GlobalAveragePool", "a", "z")]
    assert launched(graph(nodes, CONV, outputs="y z")) == ["Conv", "Relu", "GlobalAveragePool"]


def test_silu_joins_and_a_gate_of_one_pixel_does_not() -> None:
    silu = [node("Conv", "x w", "a"), node("Sigmoid", "a", "g"), node("Mul", "a g", "s")]
    assert launched(graph([*silu, node("Conv", "s w", "y")], CONV)) == ["Conv+Sigmoid+Mul", "Conv"]
    gate = [node("GlobalAveragePool", "s", "m"), node("Conv", "m w", "c"), node("Sigmoid", "c", "e")]
    model = graph([*silu, *gate, node("Mul", "s e", "y")], CONV)
    assert launched(model) == ["Conv+Sigmoid+Mul", "GlobalAveragePool", "Conv+Sigmoid", "Mul"]


def test_a_part_is_written_in_place_once_and_copied_the_second_time() -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Conv", "a w", "b"),
        node("Concat", "a b", "ab", axis=1),
        node("Conv", "ab w2", "c"),
        node("Concat", "a b c", "y", axis=1),
    ]
    model = graph(nodes, {**CONV, "w2": (4, 8, 1, 1)})
    assert launched(model) == ["Conv", "Conv", "Conv", "Concat", "Concat"]
    assert [k.numbers for k in network(model).kernels[3:]] == [2 * 4 * 64] * 2
    assert network(model).kernels[2].numbers == 12 * 64


def test_a_split_reads_no_more_than_it_writes() -> None:
    model = graph([node("Split", "x", "a y", axis=1, num_outputs=2), node("Relu", "a", "z")], {}, outputs="y z")
    assert launched(model) == ["Split", "Split", "Relu"]
    assert [k.numbers for k in network(model).kernels] == [2 * 2 * 64] * 3


def test_few_channels_a_group_are_no_work_for_tensor_cores() -> None:
    def kind(channels: int, groups: int) -> str:
        weights = {"w": (channels, channels // groups, 3, 3)}
        model = graph([node("Conv", "x w", "y", group=groups)], weights, image=(1, channels, 8, 8))
        return network(model).kernels[0].kind

    assert [kind(32, 32), kind(64, 8), kind(64, 4), kind(64, 1)] == ["grouped", "grouped", "matrix", "matrix"]


def test_products_are_counted_by_rows_columns_and_depth() -> None:
    nodes = [
        node("Reshape", "x size", "t"),
        node("Transpose", "t", "u", perm=[0, 2, 1]),
        node("MatMul", "u t", "p"),
        node("Softmax", "p", "s"),
        node("MatMul", "s w", "y"),
    ]
    model = graph(nodes, {"w": (64, 5)}, others={"size": np.array([0, 4, 64])})
    kernels = network(model).kernels
    assert [k.macs for k in kernels] == [0, 64 * 64 * 4, 0, 64 * 5 * 64]
    assert [k.weights for k in kernels] == [0, 0, 0, 64 * 5]


@pytest.mark.parametrize(
    ("layer", "weights", "image", "macs"),
    [
        (node("Gemm", "x w", "y", transB=1), (10, 24), ("batch", 24), 24 * 10),
        (node("ConvTranspose", "x w", "y", strides=[2, 2]), (4, 6, 2, 2), ("batch", 4, 8, 8), 64 * 4 * 6 * 4),
        (node("Conv", "x w", "y", group=2, strides=[2, 2]), (6, 2, 2, 2), ("batch", 4, 8, 8), 16 * 6 * 2 * 4),
    ],
)
def test_layers_by_their_sizes(layer: Any, weights: Any, image: Any, macs: int) -> None:
    assert [network(graph([layer], {"w": weights}, image=image), batch=2).macs] == [2 * macs]


def test_a_quantized_graph_has_the_kernels_of_the_float_one(models: list[OnnxModel]) -> None:
    fp32, int8 = (read_network(Path(model.path)) for model in models)
    assert (fp32.stored, int8.stored) == ("fp32", "int8")
    assert [k.operators for k in fp32.kernels] == [k.operators for k in int8.kernels]
    assert [(k.macs, k.numbers, k.weights) for k in fp32.kernels] == [
        (k.macs, k.numbers, k.weights) for k in int8.kernels
    ]
    assert all(k.int8 for k in int8.kernels if k.kind == "matrix") and not any(k.int8 for k in fp32.kernels)
    assert sum(k.quantized for k in int8.kernels) > 0.9 * sum(k.numbers for k in int8.kernels)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (graph([node("Hardmax", "x", "y")], {}), "what Hardmax (y) costs is not known"),
        (graph([node("Gelu", "x", "y", domain="com.microsoft")], {}), "Gelu are operators of another domain"),
        (graph([node("Relu", "x", "y")], {}, image=("n", 4, "h", 8)), "the size of its input x is open"),
        (graph([node("Relu", "x", "y")], {}, image=(2, 4, 8, 8)), "its input x is for batch 2, not 1"),
        (graph([node("MatMul", "x w", "y")], {"w": (5, 5)}), "shapes do not fit at batch 1"),
        (graph([node("Reshape", "x s", "y")], {}, others={"s": [3, 256]}), "Reshape (y) is fixed to another batch"),
        (graph([node("Identity", "x", "y")], {}), "no operator that takes time"),
    ],
)
def test_what_cannot_be_counted_is_refused(model: Any, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        network(model)
    assert says in caught.value.what and "\n" not in caught.value.what


def test_formats_without_a_table_are_refused() -> None:
    zero = onnx.helper.make_tensor("z", onnx.TensorProto.FLOAT8E4M3FN, [], [0.0])
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    model = graph(nodes, {"s": ()})
    model.graph.initializer.append(zero)
    with pytest.raises(ModelError, match="FLOAT8E4M3FN"):
        network(model)


def test_no_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match="is not an ONNX file"):
        read_network(tmp_path / "a.onnx")
