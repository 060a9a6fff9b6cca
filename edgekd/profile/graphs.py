"""The ONNX graphs that the `ort` scheme's export would hold for a network of operators.

Built without torch, so that a search can time thousands of candidates' operators: an INT8 operator is the float one
between DequantizeLinear and QuantizeLinear, activations uint8 per tensor, weights int8 per output channel, and ONNX
Runtime fuses it (QLinearConv, QLinearAdd, QGemm, MatMulIntegerToFloat). Where the scheme has no Q/DQ, as inside of
attention, the operators are the exporter's, in float. The values are random, which does not change the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.profile import operators as ops
from edgekd.profile import token_operators as tok
from edgekd.profile.operators import Layer, Operator, Shape

Precision = Literal["int8", "fp32"]
OPSET = 18
END = np.iinfo(np.int64).max
MOST = 6  # copies that `_pools` is asked for


def build_network(network: Iterable[Layer], precision: Precision) -> bytes:
    """The whole graph: input `images` float32 [batch, C, H, W], output `logits` float32 [batch, K]."""
    graph = _Graph(precision)
    tensors: list[str] = []
    for op, inputs in network:
        if isinstance(op, ops.Input):
            tensors.append(graph.input("images", op.shape))
        else:
            tensors.append(graph.run(op, *(tensors[place] for place in inputs)))
    graph.output(tensors[-1], "logits", op.out)
    return graph.serialize()


def build_copies(op: Operator, copies: int, precision: Precision) -> bytes:
    """`copies` of an operator on an input that is quantized already, for timing by difference.

    One after the other where the shapes allow, which is how a network runs; else side by side. A scrap of every loose
    end is an output, so that nothing is optimised away.
    """
    graph = _Graph(precision)
    if isinstance(op, ops.Pool):
        return _pools(graph, op, copies)
    if graph.int8 and isinstance(op, ops.Conv):
        op = replace(op, c_in=ops.direct_channels(op.c_in, op.c_out, op.kernel, op.stride, op.groups))
    start = tensor = graph.quantized_input("x", op.shape)
    for i in range(copies):
        if isinstance(op, ops.Add | ops.Sum):
            tensor = graph.run(op, tensor, start)
        elif isinstance(op, ops.Relu):
            tensor = graph.run(op, graph.signed_view(tensor))  # of an unsigned tensor it is nothing
        elif op.out == op.shape:
            tensor = graph.run(op, tensor)
        else:
            # Without weights of their own, copies on one input would be run once.
            source = start if i == 0 or isinstance(op, ops.Conv) else graph.quantized_input(f"x{i}", op.shape)
            y = graph.run(op, source)
            if len(op.out) == 1:
                graph.output(y, f"y{i}", op.out)
            else:
                graph.scrap(y, f"y{i}", op.out)
    if tensor != start:
        graph.scrap(tensor, "y", op.shape)
    return graph.serialize()


def _pools(graph: _Graph, op: ops.Pool, copies: int) -> bytes:
    """Pools between convolutions, whose layout in memory they take over: alone they run up to fifty times slower.

    There are as many convolutions whatever `copies` is, so that they cancel.
    """
    before, after = (ops.Conv(c, c, 3, 1, h, w, groups=c) for c, h, w in (op.shape, op.out))
    x, z = graph.quantized_input("x", op.shape), graph.quantized_input("z", op.out)
    for i in range(MOST + 1):
        wide = graph.run(before, x)
        narrow = graph.run(after, graph.run(op, wide) if i < copies else z)
        graph.scrap(wide, f"x{i}", op.shape)
        graph.scrap(narrow, f"y{i}", op.out)
    return graph.serialize()


def build_input(op: ops.Input, precision: Precision) -> bytes:
    """Images arrive, are quantized, and nothing else happens."""
    graph = _Graph(precision)
    graph.scrap(graph.input("images", op.shape), "y", op.shape)
    return graph.serialize()


class _Graph:
    """A graph under construction. A tensor is named by its float side; in INT8 most have been through Q and DQ."""

    def __init__(self, precision: Precision) -> None:
        self.int8 = precision == "int8"
        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.quantized: dict[str, str] = {}  # float tensor -> the uint8 tensor it was made from
        self.rounded: dict[str, str] = {}  # float tensor -> itself through Q and DQ
        self.signed: set[str] = set()  # float tensors whose zero point lies in the middle
        self.images: dict[str, str] = {}  # float tensor -> the input that it is, rounded

    def run(self, op: Operator, *x: str) -> str:
        """The output of an operator on tensors `x`: rounded already, but for tokens that are joined with others."""
        match op:
            case ops.Conv():
                return self._activation(self._conv(x[0], op, [op.kernel // 2] * 4, op.groups), op.relu)
            case ops.Add() | ops.Sum():
                total = self._node("Add", [self._rounded(term) for term in x])
                return self._activation(total, relu=isinstance(op, ops.Add))
            case ops.Relu():
                return self._activation(x[0], relu=True)
            case ops.Pool():
                return self._pool(x[0], op)
            case ops.SqueezeExcite():
                return self._squeeze_excite(x[0], op)
            case ops.NormHead():
                return self._head(self._norm_relu_mean(x[0], op), op.c, op.classes)
            case ops.Head():
                pooled = self._node("ReduceMean", [x[0], self._constant(np.array([2, 3], np.int64))], keepdims=0)
                return self._head(pooled, op.c, op.classes)
            case tok.Patches():
                return self._patches(x[0], op)
            case tok.Linear():
                return self._activation(self._linear(x[0], op), relu=False)
            case tok.LayerNorm():
                return self._activation(self._layer_norm(x[0], op.c), relu=False)
            case tok.Gelu():
                return self._activation(self._gelu(x[0]), relu=False)
            case tok.Attention():
                return self._activation(self._attention(x[0], op), relu=False)
            case tok.TokenPool():
                return self._token_pool(x[0], op)
            case tok.TokenHead():
                first = self._node(
                    "Gather", [self._layer_norm(x[0], op.c), self._constant(np.array(0, np.int64))], axis=1
                )
                return self._head(first, op.c, op.classes, signed=True)
        raise TypeError(f"{op} has no graph")

    def input(self, name: str, shape: Shape) -> str:
        self._io(self.inputs, name, "FLOAT", shape)
        if not self.int8:
            return name
        x = self._requantize(name, signed=True)
        self.images[x] = name
        return x

    def quantized_input(self, name: str, shape: Shape) -> str:
        self._io(self.inputs, name, "UINT8" if self.int8 else "FLOAT", shape)
        return self._dequantize(name, signed=False) if self.int8 else name

    def signed_view(self, x: str) -> str:
        """The same integers about a zero point in the middle."""
        return self._dequantize(self.quantized[x], signed=True) if self.int8 else x

    def output(self, x: str, name: str, shape: Shape) -> None:
        """Call the newest tensor `name` and give it out."""
        assert self.nodes[-1].output[0] == x
        self.nodes[-1].output[0] = name
        self._io(self.outputs, name, "FLOAT", shape)

    def scrap(self, x: str, name: str, shape: Shape) -> None:
        """A small output that depends on `x` and costs next to nothing in the layout the runtime keeps `x` in."""
        tokens = len(shape) == 2
        axes = [1] if tokens else [2, 3]
        if self.int8 or tokens:
            corner = [self._constant(np.array(v, np.int64)) for v in ([0] * len(axes), [1] * len(axes), axes)]
            source = self.quantized[self._rounded(x)] if self.int8 else x
            self.nodes.append(_helper().make_node("Slice", [source, *corner], [name]))
        else:
            self.nodes.append(_helper().make_node("GlobalAveragePool", [x], [name]))
        size = (1, shape[1]) if tokens else (shape[0], 1, 1)
        self._io(self.outputs, name, "UINT8" if self.int8 else "FLOAT", size)

    def serialize(self) -> bytes:
        helper = _helper()
        used = {name for node in self.nodes for name in node.input} | {output.name for output in self.outputs}
        nodes = [node for node in self.nodes if node.output[0] in used]  # no dequantizing for nobody
        graph = helper.make_graph(nodes, "network", self.inputs, self.outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        content: bytes = model.SerializeToString()
        return content

    def _conv(self, x: str, op: ops.Conv | tok.Patches, pads: Sequence[int], groups: int) -> str:
        c_in = op.c_in
        if x in self.images:
            c_in = ops.direct_channels(op.c_in, op.c_out, op.kernel, op.stride, groups)
            x = self._filled(x, c_in - op.c_in)
        fan_in = c_in // groups * op.kernel**2
        weight = self.random.standard_normal((op.c_out, c_in // groups, op.kernel, op.kernel))
        return self._node(
            "Conv",
            [x, self._weight(weight * (2 / fan_in) ** 0.5), self._bias(op.c_out)],
            kernel_shape=[op.kernel] * 2,
            strides=[op.stride] * 2,
            pads=list(pads),
            group=groups,
        )

    def _filled(self, x: str, channels: int) -> str:
        """An image with as many more channels of zeros, rounded after."""
        if channels == 0:
            return x
        ends = self._constant(np.array([0, 0, 0, 0, 0, channels, 0, 0], np.int64))
        return self._requantize(self._node("Pad", [self.images[x], ends]), signed=True)

    def _pool(self, x: str, op: ops.Pool) -> str:
        window = {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2, "pads": [op.padding] * 4}
        if op.kind == "max":
            return self._moved(self._node("MaxPool", [x], **window), x)
        return self._activation(self._node("AveragePool", [x], count_include_pad=0, **window), relu=False)

    def _squeeze_excite(self, x: str, op: ops.SqueezeExcite) -> str:
        mean = self._activation(self._node("GlobalAveragePool", [x]), relu=False)
        hidden = self.run(ops.Conv(op.c, op.hidden, 1, 1, 1, 1), mean)
        gate = self._node("Sigmoid", [self.run(ops.Conv(op.hidden, op.c, 1, 1, 1, 1, relu=False), hidden)])
        return self._activation(self._node("Mul", [x, gate]), relu=False)

    def _norm_relu_mean(self, x: str, op: ops.NormHead) -> str:
        ones = [self._constant(np.full(op.c, value, np.float32)) for value in (1, 0, 0, 1)]
        rectified = self._node("Relu", [self._node("BatchNormalization", [x, *ones])])
        mean = self._node("GlobalAveragePool", [rectified])
        return self._node("Reshape", [mean, self._constant(np.array([-1, op.c], np.int64))])

    def _head(self, x: str, c: int, classes: int, signed: bool = False) -> str:
        x = self._requantize(x, signed) if self.int8 else x
        weight = self.random.standard_normal((classes, c)) * c**-0.5
        bias = self._bias(classes)
        y = self._node("Gemm", [x, self._weight(weight), bias], transB=1)
        return self._requantize(y, signed=True) if self.int8 else y

    def _linear(self, x: str, op: tok.Linear) -> str:
        weight = self._weight(self.random.standard_normal((op.c_out, op.c_in)) * op.c_in**-0.5)
        product = self._node("MatMul", [x, self._node("Transpose", [weight], perm=[1, 0])])
        return self._node("Add", [product, self._bias(op.c_out)])

    def _layer_norm(self, x: str, c: int) -> str:
        affine = [self._constant(np.full(c, value, np.float32)) for value in (1, 0)]
        return self._node("LayerNormalization", [x, *affine], axis=-1, epsilon=1e-5)

    def _gelu(self, x: str) -> str:
        root, one, half = (self._constant(np.array(value, np.float32)) for value in (2**0.5, 1, 0.5))
        erf = self._node("Erf", [self._node("Div", [x, root])])
        return self._node("Mul", [x, self._node("Mul", [half, self._node("Add", [erf, one])])])

    def _attention(self, x: str, op: tok.Attention) -> str:
        x = self._moved(self._reshape(x, -1, op.n, 3, op.heads, op.dim), x)
        x = self._moved(self._node("Transpose", [x], perm=[2, 0, 3, 1, 4]), x)
        q, k, v = (
            self._node("Squeeze", [self._slice(x, i, i + 1, axis=0), self._constant(np.array([0], np.int64))])
            for i in range(3)
        )
        # The exporter asks the tensor for its sizes to transpose the keys, and scales both sides by dim^(-1/4).
        shape = self._node("Shape", [k])
        head, tokens, dim = (self._slice(shape, *part) for part in ((-END, -2), (-2, -1), (-1, END)))
        flat = self._node("Concat", [self._constant(np.array([-1], np.int64)), tokens, dim], axis=0)
        turned = self._node("Concat", [head, dim, tokens], axis=0)
        k = self._node("Transpose", [self._node("Reshape", [k, flat])], perm=[0, 2, 1])
        k = self._node("Reshape", [k, turned])
        q, k = (self._node("Mul", [t, self._constant(np.array([op.dim**-0.25], np.float32))]) for t in (q, k))
        weights = self._node("Softmax", [self._node("MatMul", [q, k])], axis=-1)
        mixed = self._node("Transpose", [self._node("MatMul", [weights, v])], perm=[0, 2, 1, 3])
        return self._reshape(mixed, -1, *op.out)

    def _patches(self, x: str, op: tok.Patches) -> str:
        (n, c), tokens = op.out, op.out[0] - 1
        class_token = self._class_token(x, c)
        y = self._activation(self._conv(x, op, [0] * 4, 1), relu=False)
        if op.placed:
            y = self._moved(self._reshape(y, -1, c, tokens), y)
            y = self._moved(self._node("Transpose", [y], perm=[0, 2, 1]), y)
            y = self._node("Concat", [class_token, y], axis=1)
            return self._node("Add", [y, self._constant(np.zeros((1, n, c), np.float32))])
        y = self._node("Add", [y, self._constant(np.zeros((1, c, *op.grid), np.float32))])
        y = self._node("Transpose", [self._reshape(y, -1, c, tokens)], perm=[0, 2, 1])
        return self._node("Concat", [class_token, y], axis=1)

    def _class_token(self, x: str, c: int) -> str:
        """The same token for every image: [batch, 1, c]."""
        one = self._constant(np.array([1], np.int64))
        size = self._node("Concat", [self._node("Shape", [x], start=0, end=1), one, one], axis=0)
        return self._node("Expand", [self._constant(np.zeros((1, 1, c), np.float32)), size])

    def _token_pool(self, x: str, op: tok.TokenPool) -> str:
        token, grid = (self._moved(self._slice(x, *part, axis=1), x) for part in ((0, 1), (1, END)))
        grid = self._moved(self._node("Transpose", [grid], perm=[0, 2, 1]), x)
        grid = self._moved(self._reshape(grid, -1, op.c_in, op.h, op.w), x)
        token = self.run(op.linear, token)
        grid = y = self.run(op.conv, grid)
        n, c = op.out
        grid = self._moved(self._reshape(grid, -1, c, n - 1), y)
        grid = self._moved(self._node("Transpose", [grid], perm=[0, 2, 1]), y)
        return self._node("Concat", [token, grid], axis=1)

    def _reshape(self, x: str, *shape: int) -> str:
        return self._node("Reshape", [x, self._constant(np.array(shape, np.int64))])

    def _slice(self, x: str, start: int, end: int, axis: int = 0) -> str:
        return self._node("Slice", [x, *(self._constant(np.array([v], np.int64)) for v in (start, end, axis))])

    def _rounded(self, x: str) -> str:
        """`x` through Q and DQ, once, where what made it left it in float."""
        if not self.int8 or x in self.quantized:
            return x
        if x not in self.rounded:
            self.rounded[x] = self._requantize(x, signed=True)
        return self.rounded[x]

    def _moved(self, y: str, x: str) -> str:
        """`y` holds values of `x` and shares its scale."""
        return self._requantize(y, signed=x in self.signed) if self.int8 else y

    def _activation(self, y: str, relu: bool) -> str:
        y = self._node("Relu", [y]) if relu else y
        return self._requantize(y, signed=not relu) if self.int8 else y

    def _requantize(self, x: str, signed: bool) -> str:
        return self._dequantize(self._node("QuantizeLinear", [x, *self._scale(signed)]), signed)

    def _dequantize(self, x: str, signed: bool) -> str:
        y = self._node("DequantizeLinear", [x, *self._scale(signed)])
        self.quantized[y] = x
        self.signed |= {y} if signed else set()
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

    def _bias(self, size: int) -> str:
        return self._constant(np.full(size, 0.01, np.float32))

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(_helper().make_node(kind, inputs, [name], **attributes))
        return name

    def _constant(self, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def _io(self, where: list[Any], name: str, kind: str, shape: Shape) -> None:
        from onnx import TensorProto

        where.append(_helper().make_tensor_value_info(name, getattr(TensorProto, kind), ["batch", *shape]))


def _helper() -> Any:
    from onnx import helper  # slow to import, and the measuring process never builds graphs

    return helper
