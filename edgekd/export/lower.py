"""A graph of opset 18, the first that torch exports, rewritten for opset 13 or 17: what TensorRT 8 parses.

onnx's own version converter has no way down for most operators, Relu and Add among them, and keeps attributes that an
older ReduceMean does not have. So each node is compared with its older definition: what only gained types or defaults
stays as it is, what changed is rewritten, and the rest is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import defs, helper, load, numpy_helper

from edgekd.errors import ConfigError, ParityError
from edgekd.export import parity

NOISE = (1, 3)  # batches that both graphs are run on


class Constants:
    """The tensors of a graph, to look up and to add to."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.casts = {node.output[0]: node.attribute[0].i for node in graph.node if node.op_type == "Cast"}

    def array(self, name: str) -> NDArray[Any] | None:
        return numpy_helper.to_array(self.tensors[name]) if name in self.tensors else None

    def type_of(self, name: str) -> int | None:
        """The element type of a constant, or of what a Cast makes."""
        return self.tensors[name].data_type if name in self.tensors else self.casts.get(name)

    def add(self, name: str, array: NDArray[Any]) -> str:
        self.tensors[name] = numpy_helper.from_array(array, name)
        self.graph.initializer.append(self.tensors[name])
        return name


Rewrite = Callable[[Any, Constants], "list[Any] | None"]  # a node's older form; None: it has none here


def lower(model: Any, opset: int) -> None:
    """Rewrite an onnx.ModelProto for an older opset, in place.

    Raises ConfigError for an operator that has no form there.
    """
    graph = model.graph
    newer = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    constants, nodes = Constants(graph), []
    for node in graph.node:
        lowered = _lowered(node, newer, opset, constants)
        if lowered is None:
            since = defs.get_schema(node.op_type, newer, node.domain).since_version
            raise ConfigError(
                f"export.opset: {opset}, and {node.op_type} ({node.name}) of opset {since} has no form there",
                f"Set it to {since} or more, or take a student without {node.op_type}.",
            )
        nodes += lowered
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(model)
    model.opset_import[0].version = opset
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)


def drop_unused(model: Any) -> None:
    """Initializers that no node reads."""
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


def prove(path: Path, before: Path, input_shape: tuple[int, int, int]) -> None:
    """Run the graphs at `path` and `before` on noise, operator by operator. Raises ParityError where they differ."""
    from edgekd.profile.backends.ort_cpu import OrtCpuSession

    rng, nodes = np.random.default_rng(0), load(path, load_external_data=False).graph.node
    quantized = any(node.op_type == "QuantizeLinear" for node in nodes)
    for batch in NOISE:
        feeds = {"images": rng.standard_normal((batch, *input_shape)).astype(np.float32)}
        logits = [next(iter(OrtCpuSession(str(f), 1, optimised=False).infer(feeds).values())) for f in (path, before)]
        record = parity.compare(*logits)
        rounded = quantized and record["cosine"] >= parity.INT8_COSINE  # a last bit may turn a rounding
        if not (rounded or record["max_rel_error"] <= parity.FP32_TOLERANCE):
            raise ParityError(
                f"{path.name} computes something else in its older opset: an error of {record['max_rel_error']:.2g} "
                f"of the largest logit on {batch} images of noise",
                "Take a newer export.opset.",
            )


def _lowered(node: Any, newer: int, opset: int, constants: Constants) -> list[Any] | None:
    if node.op_type in REWRITES:
        return REWRITES[node.op_type](node, constants)
    try:
        new, old = (defs.get_schema(node.op_type, version, node.domain) for version in (newer, opset))
    except defs.SchemaError:
        return None
    if new.since_version == old.since_version:
        return [node]
    if len(node.input) > old.max_input:
        return _axes_as_attribute(node, constants) if node.op_type.startswith("Reduce") else None
    for attribute in [a for a in node.attribute if a.name not in old.attributes]:
        default = helper.get_attribute_value(new.attributes[attribute.name].default_value)
        if helper.get_attribute_value(attribute) != default:
            return None
        node.attribute.remove(attribute)  # it says what the older operator does anyway
    return [node]


def _axes_as_attribute(node: Any, constants: Constants) -> list[Any] | None:
    kept, axes = _attributes(node), constants.array(node.input[1])
    if axes is None or kept.pop("noop_with_empty_axes", 0):
        return None
    return [helper.make_node(node.op_type, node.input[:1], node.output, node.name, axes=axes.tolist(), **kept)]


def _reshape(node: Any, constants: Constants) -> list[Any] | None:
    """`allowzero` is newer, and says nothing about a shape without a zero."""
    for attribute in [a for a in node.attribute if a.name == "allowzero"]:
        shape = constants.array(node.input[1])
        if attribute.i and (shape is None or not shape.all()):
            return None
        node.attribute.remove(attribute)
    return [node]


def _shape(node: Any, constants: Constants) -> list[Any]:
    """`start` and `end` are newer: the whole shape is sliced instead."""
    bounds = _attributes(node)
    if not bounds:
        return [node]
    whole, last = f"{node.name}_whole", np.iinfo(np.int64).max
    ends = {"starts": bounds.get("start", 0), "ends": bounds.get("end", last), "axes": 0}
    names = [constants.add(f"{node.name}_{key}", np.array([value], np.int64)) for key, value in ends.items()]
    return [
        helper.make_node("Shape", node.input, [whole], whole),
        helper.make_node("Slice", [whole, *names], node.output, node.name),
    ]


def _hard_swish(node: Any, constants: Constants) -> list[Any]:
    """x * HardSigmoid(x): opset 17 has HardSwish, and TensorRT 8.5 does not."""
    gate = f"{node.name}_gate"
    return [
        helper.make_node("HardSigmoid", node.input, [gate], gate, alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", [node.input[0], gate], node.output, node.name),
    ]


def _layer_normalization(node: Any, constants: Constants) -> list[Any] | None:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias: opset 17 has the operator, and TensorRT 8.5 does not."""
    attributes, (source, scale, *bias) = _attributes(node), node.input
    axis, kind = attributes.get("axis", -1), constants.type_of(scale)
    if axis >= 0 or kind is None or any(node.output[1:]):
        return None
    axes = list(range(axis, 0))
    small = np.asarray(attributes.get("epsilon", 1e-5), helper.tensor_dtype_to_np_dtype(kind))
    epsilon, nodes = constants.add(f"{node.name}_epsilon", small), []

    def step(op: str, inputs: list[str], part: str, **options: Any) -> str:
        name = f"{node.name}_{part}"
        nodes.append(helper.make_node(op, inputs, [name], name, **options))
        return name

    centred = step("Sub", [source, step("ReduceMean", [source], "mean", axes=axes)], "centred")
    variance = step("ReduceMean", [step("Mul", [centred, centred], "squared")], "variance", axes=axes)
    deviation = step("Sqrt", [step("Add", [variance, epsilon], "shifted")], "deviation")
    scaled = step("Mul", [step("Div", [centred, deviation], "normal"), scale], "scaled")
    if bias:
        step("Add", [scaled, *bias], "biased")
    nodes[-1].output[0] = node.output[0]
    return nodes


def _attributes(node: Any) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


REWRITES: dict[str, Rewrite] = {
    "HardSwish": _hard_swish,
    "LayerNormalization": _layer_normalization,
    "Reshape": _reshape,
    "Shape": _shape,
}
