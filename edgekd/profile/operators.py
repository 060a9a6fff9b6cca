"""Networks as lists of operators, and the ONNX graphs that the `ort` scheme's export would hold for them.

Built without torch, so that a search can time thousands of candidates' operators: each INT8 operator is the float one
between DequantizeLinear and QuantizeLinear, activations uint8 per tensor, weights int8 per output channel, and ONNX
Runtime fuses it (QLinearConv, QLinearAdd, QGemm). The values are random; on a processor they do not change the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Precision = Literal["int8", "fp32"]
OPSET = 18


@dataclass(frozen=True)
class Conv:
    """[c_in, h, w] -> [c_out, ceil(h/stride), ceil(w/stride)], padding kernel // 2, BatchNorm folded in."""

    c_in: int
    c_out: int
    kernel: int
    stride: int
    h: int
    w: int
    relu: bool = True
    groups: int = 1

    @property
    def out(self) -> tuple[int, int, int]:
        return self.c_out, -(-self.h // self.stride), -(-self.w // self.stride)


@dataclass(frozen=True)
class Add:
    """Two maps [c, h, w], added, then ReLU."""

    c: int
    h: int
    w: int


@dataclass(frozen=True)
class Head:
    """[c, h, w] -> mean over h and w -> linear -> `classes` logits, in float at the end."""

    c: int
    h: int
    w: int
    classes: int


@dataclass(frozen=True)
class Input:
    """Float images [c, h, w] arrive and are quantized; the cost of a call itself is counted here, once a network."""

    c: int
    h: int
    w: int


Operator = Conv | Add | Head | Input


@dataclass(frozen=True)
class Residual:
    """relu(body(x) + shortcut(x)); an empty shortcut is the identity."""

    body: tuple[Conv, ...]
    shortcut: tuple[Conv, ...] = ()


Layer = Conv | Add | Head | Input | Residual


def operators(network: Iterable[Layer]) -> list[Operator]:
    """The operators a network runs, in order: every residual block opened."""
    flat: list[Operator] = []
    for layer in network:
        if isinstance(layer, Residual):
            flat += [*layer.body, *layer.shortcut, Add(*layer.body[-1].out)]
        else:
            flat.append(layer)
    return flat


def cifar_resnet(
    depths: Sequence[int], widths: Sequence[int], input_shape: tuple[int, int, int], num_classes: int
) -> list[Layer]:
    """`edgekd.models.cifar.CifarResNet` with B shortcuts (1x1 convolutions), as a network to time."""
    c, h, w = input_shape
    network: list[Layer] = [Input(c, h, w), Conv(c, widths[0], 3, 1, h, w)]
    c = widths[0]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            first = Conv(c, width, 3, stride, h, w)
            change = stride != 1 or c != width
            shortcut = (Conv(c, width, 1, stride, h, w, relu=False),) if change else ()
            c, h, w = first.out
            network.append(Residual((first, Conv(c, c, 3, 1, h, w, relu=False)), shortcut))
    return [*network, Head(c, h, w, num_classes)]


def build_network(network: Sequence[Layer], precision: Precision) -> bytes:
    """The whole graph: input `images` float32 [batch, C, H, W], output `logits` float32 [batch, K]."""
    graph = _Graph(precision)
    tensor = ""
    for layer in network:
        if isinstance(layer, Input):
            tensor = graph.input("images", (layer.c, layer.h, layer.w))
        elif isinstance(layer, Conv):
            tensor = graph.conv(tensor, layer)
        elif isinstance(layer, Head):
            graph.output(graph.head(tensor, layer), "logits", (layer.classes,))
        elif isinstance(layer, Residual):
            body = shortcut = tensor
            for conv in layer.body:
                body = graph.conv(body, conv)
            for conv in layer.shortcut:
                shortcut = graph.conv(shortcut, conv)
            tensor = graph.add(body, shortcut)
        else:
            raise TypeError(f"{layer} cannot stand alone: an addition belongs to a Residual")
    return graph.serialize()


def build_copies(op: Conv | Add | Head, copies: int, precision: Precision) -> bytes:
    """`copies` of an operator on an input that is quantized already, for timing by difference.

    One after the other where the shapes allow, which is how a network runs; else side by side. A scrap of every loose
    end is an output, so that nothing is optimised away.
    """
    graph = _Graph(precision)
    shape = (op.c_in, op.h, op.w) if isinstance(op, Conv) else (op.c, op.h, op.w)
    start = tensor = graph.quantized_input("x", shape)
    for i in range(copies):
        if isinstance(op, Head):
            tensor = start if i == 0 else graph.quantized_input(f"x{i}", shape)  # one input would be pooled once
            graph.output(graph.head(tensor, op), f"y{i}", (op.classes,))
            tensor = start
        elif isinstance(op, Add):
            tensor = graph.add(tensor, start)
        elif op.out == shape:
            tensor = graph.conv(tensor, op)
        else:
            graph.scrap(graph.conv(start, op), f"y{i}", op.c_out)
    if tensor != start:
        graph.scrap(tensor, "y", shape[0])
    return graph.serialize()


def build_input(op: Input, precision: Precision) -> bytes:
    """Images arrive, are quantized, and nothing else happens."""
    graph = _Graph(precision)
    graph.scrap(graph.input("images", (op.c, op.h, op.w)), "y", op.c)
    return graph.serialize()


class _Graph:
    """A graph under construction. A tensor is named by its float side; in INT8 it has been through Q and DQ."""

    def __init__(self, precision: Precision) -> None:
        self.int8 = precision == "int8"
        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.quantized: dict[str, str] = {}  # float tensor -> the uint8 tensor it was made from

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        self._io(self.inputs, name, "FLOAT", shape)
        return self._requantize(name, signed=True) if self.int8 else name

    def quantized_input(self, name: str, shape: tuple[int, ...]) -> str:
        self._io(self.inputs, name, "UINT8" if self.int8 else "FLOAT", shape)
        return self._dequantize(name, signed=False) if self.int8 else name

    def conv(self, x: str, op: Conv) -> str:
        fan_in = op.c_in // op.groups * op.kernel**2
        weight = self.random.standard_normal((op.c_out, op.c_in // op.groups, op.kernel, op.kernel))
        y = self._node(
            "Conv",
            [x, self._weight(weight * (2 / fan_in) ** 0.5), self._constant(np.full(op.c_out, 0.01, np.float32))],
            kernel_shape=[op.kernel] * 2,
            strides=[op.stride] * 2,
            pads=[op.kernel // 2] * 4,
            group=op.groups,
        )
        return self._activation(y, op.relu)

    def add(self, a: str, b: str) -> str:
        return self._activation(self._node("Add", [a, b]), relu=True)

    def head(self, x: str, op: Head) -> str:
        pooled = self._node("ReduceMean", [x, self._constant(np.array([2, 3], np.int64))], keepdims=0)
        pooled = self._requantize(pooled, signed=False) if self.int8 else pooled
        weight = self.random.standard_normal((op.classes, op.c)) * op.c**-0.5
        bias = self._constant(np.full(op.classes, 0.01, np.float32))
        y = self._node("Gemm", [pooled, self._weight(weight), bias], transB=1)
        return self._requantize(y, signed=True) if self.int8 else y

    def output(self, x: str, name: str, shape: tuple[int, ...]) -> None:
        self.nodes[-1].output[0] = name
        self._io(self.outputs, name, "FLOAT", shape)

    def scrap(self, x: str, name: str, channels: int) -> None:
        """A small output that depends on `x` and costs next to nothing in the layout the runtime keeps `x` in."""
        if self.int8:
            corner = [self._constant(np.array(v, np.int64)) for v in ([0, 0], [1, 1], [2, 3])]
            self.nodes.append(_helper().make_node("Slice", [self.quantized[x], *corner], [name]))
        else:
            self.nodes.append(_helper().make_node("GlobalAveragePool", [x], [name]))
        self._io(self.outputs, name, "UINT8" if self.int8 else "FLOAT", (channels, 1, 1))

    def serialize(self) -> bytes:
        helper = _helper()
        used = {name for node in self.nodes for name in node.input} | {output.name for output in self.outputs}
        nodes = [node for node in self.nodes if node.output[0] in used]  # no dequantizing for nobody
        graph = helper.make_graph(nodes, "network", self.inputs, self.outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        content: bytes = model.SerializeToString()
        return content

    def _activation(self, y: str, relu: bool) -> str:
        y = self._node("Relu", [y]) if relu else y
        return self._requantize(y, signed=not relu) if self.int8 else y

    def _requantize(self, x: str, signed: bool) -> str:
        return self._dequantize(self._node("QuantizeLinear", [x, *self._scale(signed)]), signed)

    def _dequantize(self, x: str, signed: bool) -> str:
        y = self._node("DequantizeLinear", [x, *self._scale(signed)])
        self.quantized[y] = x
        return y

    def _scale(self, signed: bool) -> list[str]:
        zero = np.array(128 if signed else 0, np.uint8)
        return [self._constant(np.array(0.02, np.float32)), self._constant(zero)]

    def _weight(self, weight: NDArray[np.float64]) -> str:
        if not self.int8:
            return self._constant(weight.astype(np.float32))
        scale = np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127
        rounded = np.round(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
        parts = [rounded, scale.astype(np.float32), np.zeros(len(weight), np.int8)]
        return self._node("DequantizeLinear", [self._constant(part) for part in parts], axis=0)

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(_helper().make_node(kind, inputs, [name], **attributes))
        return name

    def _constant(self, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def _io(self, where: list[Any], name: str, kind: str, shape: tuple[int, ...]) -> None:
        from onnx import TensorProto

        where.append(_helper().make_tensor_value_info(name, getattr(TensorProto, kind), ["batch", *shape]))


def _helper() -> Any:
    from onnx import helper  # slow to import, and the measuring process never builds graphs

    return helper
