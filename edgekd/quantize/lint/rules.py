"""What is wrong with a Q/DQ graph as it was exported: one function a rule, which yields the nodes at fault and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekd.catalog import OPSET

Q, DQ = "QuantizeLinear", "DequantizeLinear"
WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}  # the axis of the weights' output channels
FUSED = {"Relu", "Clip", "BatchNormalization"}  # with the convolution before them
MOVES = {"MaxPool", "Reshape", "Flatten", "Transpose", "Slice", "Pad"}  # the same values in other places
INTEGER_OPS = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}

Fault = tuple[str, str]  # name of a node, what is wrong with it
Check = Callable[["Graph"], Iterator[Fault]]


@dataclass(frozen=True)
class Finding:
    rule: str
    node: str
    text: str

    def __str__(self) -> str:
        return f"{self.node}: {self.text}"


@dataclass(frozen=True)
class Rule:
    name: str
    runtimes: frozenset[str]  # that it holds for
    check: Check


class Graph:
    """An ONNX graph with its edges both ways."""

    def __init__(self, model: Any) -> None:
        self.nodes = list(model.graph.node)
        for node in self.nodes:
            node.name = node.name or node.output[0]  # a finding has to name it
        self.opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def source(self, node: Any, place: int) -> Any:
        """The node that makes an input of `node`, or None."""
        return self.maker.get(node.input[place]) if place < len(node.input) else None

    def quantizers(self, name: str) -> Iterator[Any]:
        """The QuantizeLinear of a tensor, moved or not."""
        for reader in self.readers.get(name, []):
            if reader.op_type == Q:
                yield reader
            elif reader.op_type in MOVES and reader.input[0] == name:
                yield from self.quantizers(reader.output[0])

    def array(self, name: str) -> NDArray[Any] | None:
        return numpy_helper.to_array(self.tensors[name]) if name in self.tensors else None

    def scale(self, node: Any) -> NDArray[Any] | None:
        """Of a Q or DQ, where it is a constant."""
        return self.array(node.input[1])

    def zero(self, node: Any) -> NDArray[Any] | None:
        return self.array(node.input[2]) if len(node.input) > 2 else None

    def weighted(self) -> Iterator[Any]:
        """Convolutions and matrix products with constant weights."""
        for node in self.nodes:
            if node.op_type in WEIGHTED and self.weights(node) is not None:
                yield node

    def weights(self, node: Any) -> Any:
        """The constant behind a node's second input, through Q and DQ, or None."""
        name = node.input[1]
        while name in self.maker and self.maker[name].op_type in (Q, DQ, "Cast", "Transpose"):
            name = self.maker[name].input[0]
        return self.tensors.get(name)

    def behind(self, node: Any, place: int, *passed: str) -> tuple[Any, set[str]]:
        """The node that makes an input of `node`, or None, and which of the operators `passed` lie between."""
        made, between = self.source(node, place), set()
        while made is not None and made.op_type in passed:
            between.add(made.op_type)
            made = self.source(made, 0)
        return made, between

    def dequantizer(self, node: Any, place: int) -> Any:
        """The DequantizeLinear of an input of `node`, or None; weights may be transposed after it."""
        made, _ = self.behind(node, place, *(("Transpose",) if place == 1 else ()))
        return made if self._is(made, DQ) else None

    def channel_axis(self, node: Any) -> int:
        """Of the output channels in the stored weights: 1 in a MatMul and in a Gemm that does not transpose them."""
        axis = WEIGHTED[node.op_type]
        if node.op_type in ("Gemm", "MatMul"):
            _, between = self.behind(node, 1, DQ, Q, "Cast", "Transpose")
            axis = int(not attribute(node, "transB", 0)) ^ ("Transpose" in between)
        return axis

    def quantized(self, node: Any) -> bool:
        return any(self.dequantizer(node, place) is not None for place in (0, 1))

    @staticmethod
    def _is(node: Any, op: str) -> bool:
        return node is not None and node.op_type == op


def attribute(node: Any, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def scales(graph: Graph) -> Iterator[Fault]:
    for node in graph.nodes:
        if node.op_type in (Q, DQ):
            scale = graph.scale(node)
            if scale is None:
                yield node.name, "its scale is not a constant"
            elif not (np.isfinite(scale).all() and (scale > 0).all()):
                yield node.name, f"a scale is {scale.min()}"


def weight_zero_points(graph: Graph) -> Iterator[Fault]:
    for node in graph.weighted():
        source = graph.dequantizer(node, 1)
        zero = None if source is None else graph.zero(source)
        if zero is not None and np.asarray(zero, np.float32).any():
            yield node.name, "weights have a zero point that is not 0"


def activation_zero_points(graph: Graph) -> Iterator[Fault]:
    for node in graph.nodes:
        zero = graph.zero(node) if node.op_type in (Q, DQ) else None
        if zero is None or (node.op_type == DQ and node.input[0] in graph.tensors):
            continue
        if zero.dtype == np.uint8 or np.asarray(zero, np.float32).any():
            yield node.name, f"{zero.dtype} with zero point {zero.flat[0]}, and TensorRT takes int8 about 0"


def granularity(graph: Graph) -> Iterator[Fault]:
    for node in graph.nodes:
        if node.op_type == Q and node.input[0] not in graph.tensors:
            scale = graph.scale(node)
            if scale is not None and scale.size > 1:
                yield node.name, f"activations have {scale.size} scales, and integer kernels take one"
    for node in graph.weighted():
        source = graph.dequantizer(node, 1)
        if source is None:
            continue
        scale, channels = graph.scale(source), graph.weights(node).dims[graph.channel_axis(node)]
        if scale is not None and scale.size != channels:
            yield node.name, f"weights have {scale.size} scales, not one for each of {channels} output channels"


def axis(graph: Graph) -> Iterator[Fault]:
    for node in graph.weighted():
        source = graph.dequantizer(node, 1)
        if source is None:
            continue
        scale = graph.scale(source)
        if scale is not None and scale.size > 1:
            given, rank = attribute(source, "axis", 1), len(graph.weights(node).dims)
            if given % rank != graph.channel_axis(node):
                yield node.name, f"weights have their scales on axis {given}, not on that of output channels"


def float_inputs(graph: Graph) -> Iterator[Fault]:
    """A layer with one side quantized runs in float like one with none, and pays for the conversion."""
    for node in graph.weighted():
        (data, _), (weight, _) = graph.behind(node, 0, "Cast"), graph.behind(node, 1, "Cast", "Transpose")
        if graph._is(weight, DQ) and not graph._is(data, DQ):
            yield node.name, f"the input of this {node.op_type} is float"
        if graph._is(data, DQ) and not graph._is(weight, DQ):
            yield node.name, f"the weights of this {node.op_type} are not stored as INT8"


def stored_weights(graph: Graph) -> Iterator[Fault]:
    for node in graph.weighted():
        source, weights = graph.dequantizer(node, 1), graph.weights(node)
        if source is not None and weights.data_type not in QUANTIZED_TYPES:
            yield node.name, "the weights are stored as float before their Q/DQ: four times the size"


def stored_weights_tensorrt(graph: Graph) -> Iterator[Fault]:
    """What only TensorRT 8 is given is stored as it takes it: it has no int8 constants."""
    if graph.opset >= OPSET:
        yield from stored_weights(graph)


def int32_biases(graph: Graph) -> Iterator[Fault]:
    for node in graph.nodes:
        tensor = graph.tensors.get(node.input[0]) if node.op_type == DQ else None
        if tensor is not None and tensor.data_type == onnx.TensorProto.INT32:
            yield node.name, "an int32 bias, which NVIDIA's parser refuses: keep biases float"


def float_gemm_biases(graph: Graph) -> Iterator[Fault]:
    for node in graph.weighted():
        bias = node.input[2] if len(node.input) > 2 else ""
        if node.op_type == "Gemm" and graph.quantized(node) and bias in graph.tensors:
            yield node.name, "a float bias keeps this Gemm in float"


def additions(graph: Graph) -> Iterator[Fault]:
    """Convolution and addition are one kernel where nothing stands between them and the other side is integer."""
    for node in graph.nodes:
        if node.op_type != "Add" or any(name in graph.tensors for name in node.input):
            continue
        sources = [graph.source(node, place) for place in (0, 1)]
        behind = [graph.source(graph.source(s, 0), 0) if graph._is(s, DQ) else None for s in sources]
        convolutions = [made is not None and made.op_type in ("Conv", "ConvTranspose") for made in behind]
        quantized = [graph._is(source, DQ) for source in sources]
        if all(quantized) and any(convolutions):
            yield node.name, "Q/DQ on both sides: the one behind the convolution keeps it from fusing with the addition"
        elif not any(quantized) and any(graph._is(s, "Conv") and graph.quantized(s) for s in sources):
            yield node.name, "Q/DQ on neither side: the skip branch is added in float"


def between_fused(graph: Graph) -> Iterator[Fault]:
    for node in graph.nodes:
        if node.op_type == Q and graph._is(graph.source(node, 0), "Conv"):
            for dequantize in graph.readers.get(node.output[0], []):
                for reader in graph.readers.get(dequantize.output[0], []):
                    if reader.op_type in FUSED:
                        yield node.name, f"Q/DQ between a convolution and its {reader.op_type}"


def concatenations(graph: Graph) -> Iterator[Fault]:
    for node in graph.nodes:
        if node.op_type != "Concat":
            continue
        sources = [graph.source(node, place) for place in range(len(node.input))]
        if not all(graph._is(source, DQ) for source in sources):
            continue
        quantizers = list(graph.quantizers(node.output[0]))
        if not quantizers:  # it joins floats, and requantizes nothing
            continue
        scales = [graph.scale(end) for end in (*sources, *quantizers)]
        found = {float(scale.flat[0]) for scale in scales if scale is not None}
        if len(found) > 1:
            yield node.name, f"its inputs and output have {len(found)} scales: each other one is requantized"


def casts(graph: Graph) -> Iterator[Fault]:
    for node in graph.weighted():
        for place, side in ((0, "input"), (1, "weights")):
            made, between = graph.behind(node, place, "Cast")
            if between and graph._is(made, DQ):
                yield node.name, f"a Cast between {DQ} and the {side} of this {node.op_type} keeps it in float"


def integer_operators(graph: Graph) -> Iterator[Fault]:
    for node in graph.nodes:
        if node.op_type in INTEGER_OPS:
            yield node.name, f"{node.op_type} is not Q/DQ, and NVIDIA's parser does not know it"


QUANTIZED_TYPES = frozenset(
    {
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT4,
        onnx.TensorProto.FLOAT8E4M3FN,
    }
)
ORT, TENSORRT = frozenset({"onnxruntime"}), frozenset({"tensorrt"})
RULES = (
    Rule("scale", ORT | TENSORRT, scales),
    Rule("weight zero point", ORT | TENSORRT, weight_zero_points),
    Rule("activation zero point", TENSORRT, activation_zero_points),
    Rule("granularity", ORT | TENSORRT, granularity),
    Rule("axis", ORT | TENSORRT, axis),
    Rule("float input", ORT | TENSORRT, float_inputs),
    Rule("stored weights", ORT, stored_weights),
    Rule("stored weights", TENSORRT, stored_weights_tensorrt),
    Rule("int32 bias", TENSORRT, int32_biases),
    Rule("float bias", ORT, float_gemm_biases),
    Rule("addition", TENSORRT, additions),
    Rule("between fused", ORT | TENSORRT, between_fused),
    Rule("concatenation", ORT | TENSORRT, concatenations),
    Rule("cast", ORT | TENSORRT, casts),
    Rule("integer operator", TENSORRT, integer_operators),
)


FORMATS = {
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "int8",
    onnx.TensorProto.INT4: "int4",
    onnx.TensorProto.UINT4: "int4",
    onnx.TensorProto.FLOAT8E4M3FN: "fp8",
    onnx.TensorProto.FLOAT4E2M1: "fp4",
}


def formats(model: Any) -> dict[str, int]:
    """The number formats of the graph's Q/DQ, and how many operators have each."""
    graph, found = Graph(model), Counter[str]()
    for node in graph.nodes:
        zero = graph.tensors.get(node.input[2]) if node.op_type in (Q, DQ) and len(node.input) > 2 else None
        if zero is not None and zero.data_type in FORMATS:
            found[FORMATS[zero.data_type]] += 1
    return dict(found)


def findings(model: Any, runtime: str) -> list[Finding]:
    """Of the rules of `runtime`, for an onnx.ModelProto whose tensors lie inside it."""
    graph = Graph(model)
    return [
        Finding(rule.name, node, text) for rule in RULES if runtime in rule.runtimes for node, text in rule.check(graph)
    ]
