"""Edits of an exported Q/DQ graph: what a runtime fuses only when it is said in its own words."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgekd.export.lower import drop_unused
from edgekd.profile.operators import direct_channels


def name_global_pools(model: Any) -> None:
    """A mean over both spatial axes of [B, C, H, W], which the exporter writes as ReduceMean, is GlobalAveragePool."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ReduceMean" and _is_global_pool(node, constants):
            node.op_type = "GlobalAveragePool"
            del node.input[1:]
            del node.attribute[:]
    drop_unused(model)


def round_gemm_biases(model: Any) -> None:
    """A Gemm between DequantizeLinears gets its bias as int32, in units of the product of their scales."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    nodes = []
    for node in graph.node:
        sources = [maker[name] for name in node.input[:2] if name in maker]
        integers = [source.op_type for source in sources] == ["DequantizeLinear"] * 2
        if node.op_type == "Gemm" and integers and len(node.input) == 3 and node.input[2] in constants:
            scales = [numpy_helper.to_array(constants[source.input[1]]) for source in sources]
            scale = np.atleast_1d(scales[0] * scales[1]).astype(np.float32)
            bias = numpy_helper.to_array(constants[node.input[2]])
            scale = np.broadcast_to(scale, bias.shape).copy()
            name = node.input[2]
            values = np.clip(np.round(bias.astype(np.float64) / scale), -(2**31), 2**31 - 1).astype(np.int32)
            for suffix, array in (("int32", values), ("scale", scale), ("zero", np.zeros_like(values))):
                graph.initializer.append(numpy_helper.from_array(array, f"{name}_{suffix}"))
            inputs = [f"{name}_{suffix}" for suffix in ("int32", "scale", "zero")]
            nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dequantized"], axis=0))
            node.input[2] = f"{name}_dequantized"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(model)


def pad_channels(model: Any) -> None:
    """Channels of zeros fill an image up to what ONNX Runtime's kernels take directly (`direct_channels`).

    So do the weights of the convolution that reads it; the integers that come out are the same ones.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    maker = {name: node for node in graph.node for name in node.output}

    def made_by(name: str, kind: str) -> Any:
        node = maker.get(name)
        return node if node is not None and node.op_type == kind and readers[name] == 1 else None

    nodes = list(graph.node)
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        image, kernel = (made_by(name, "DequantizeLinear") for name in node.input[:2])
        quantize = None if image is None else made_by(image.input[0], "QuantizeLinear")
        weights = None if kernel is None or readers[kernel.input[0]] != 1 else constants.get(kernel.input[0])
        if quantize is None or weights is None or quantize.input[0] in maker:
            continue
        values = numpy_helper.to_array(weights)  # [N, C, H, W]
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        size, stride = max(values.shape[2:]), max(given.get("strides", [1]))
        missing = direct_channels(values.shape[1], len(values), size, stride, given.get("group", 1)) - values.shape[1]
        if missing == 0:
            continue
        rest = [0] * (values.ndim - 2)
        filled = np.pad(values, [(0, 0), (0, missing), *[(0, 0)] * len(rest)])
        weights.CopyFrom(numpy_helper.from_array(filled, weights.name))
        pads, padded = f"{quantize.input[0]}_pads", f"{quantize.input[0]}_padded"
        ends = np.array([0, 0, *rest, 0, missing, *rest], np.int64)
        graph.initializer.append(numpy_helper.from_array(ends, pads))
        nodes.insert(nodes.index(quantize), helper.make_node("Pad", [quantize.input[0], pads], [padded], name=padded))
        quantize.input[0] = padded
    del graph.node[:]
    graph.node.extend(nodes)


def transpose_weights(model: Any) -> None:
    """Quantized weights [N, K] that are transposed after their DequantizeLinear are stored as [K, N]."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    maker = {name: node for node in graph.node for name in node.output}
    nodes = []
    for node in graph.node:
        source = maker.get(node.input[0]) if node.op_type == "Transpose" else None
        single = source is not None and readers[node.input[0]] == 1 and readers[source.input[0]] == 1
        if source is None or source.op_type != "DequantizeLinear" or source.input[0] not in constants or not single:
            nodes.append(node)
            continue
        weights = constants[source.input[0]]
        (axis,) = (attribute for attribute in source.attribute if attribute.name == "axis")
        axis.i = 1 - axis.i
        weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights).T.copy(), weights.name))
        source.output[0] = node.output[0]
    del graph.node[:]
    graph.node.extend(nodes)


def float_weights(model: Any) -> None:
    """Weights stored as int8 become float ones behind a QuantizeLinear, which gives the same integers.

    TensorRT 8 takes no int8 constants ("invalid weights type of Int8").
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        stored = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if stored is not None and stored.data_type == TensorProto.INT8:
            values, scale = numpy_helper.to_array(stored), numpy_helper.to_array(constants[node.input[1]])
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape = [-1 if i == axis % values.ndim else 1 for i in range(values.ndim)] if scale.ndim else []
            floats, integers = f"{stored.name}_float", f"{node.name}_quantized"
            if floats not in constants:
                constants[floats] = numpy_helper.from_array(values * scale.reshape(shape), floats)
                graph.initializer.append(constants[floats])
            quantize = helper.make_node("QuantizeLinear", [floats, *node.input[1:]], [integers], name=f"{node.name}_q")
            quantize.attribute.extend(a for a in node.attribute if a.name == "axis")
            node.input[0] = integers
            nodes.append(quantize)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(model)


def _is_global_pool(node: Any, constants: dict[str, Any]) -> bool:
    keep = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "keepdims"), 1)
    if not keep or len(node.input) < 2 or node.input[1] not in constants:
        return False
    axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
    return sorted(axis % 4 for axis in axes) == [2, 3] and len(axes) == 2
