"""An ONNX graph: what goes in and out, in which precision each layer computes, its Q/DQ, and who made it."""

from __future__ import annotations

import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from edgekd.errors import ModelError
from edgekd.stage import digest_file

Q, DQ = "QuantizeLinear", "DequantizeLinear"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity")  # between weights and their layer
STANDARD = ("", "ai.onnx")


def describe_onnx(path: Path) -> dict[str, Any]:
    """The record of an ONNX file; weights that lie outside it are counted, not read. Raises ModelError.

    The precision of a layer is that of the numbers it multiplies: of its Q/DQ where both sides have them, else its
    input's type. Where the type is not known it is null.
    """
    import onnx

    model = load(path)
    try:
        shaped = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError:
        shaped = model  # operators of another domain, or shapes that do not fit: what is stated has to do
    graph = _Graph(shaped.graph)
    layers = [graph.layer(node) for node in shaped.graph.node if node.op_type not in (Q, DQ, "Constant")]
    domains = sorted({node.domain for node in model.graph.node} - set(STANDARD))
    return {
        "kind": "onnx",
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": digest_file(path),
        "external": sorted({entry.value for t in graph.constants.values() for entry in _locations(t)}),
        "opset": next((entry.version for entry in model.opset_import if entry.domain in STANDARD), None),
        "custom_domains": domains,
        "ir_version": model.ir_version,
        "inputs": signature(model, "input"),
        "outputs": signature(model, "output"),
        "parameters": graph.parameters(),
        "operators": dict(Counter(node.op_type for node in model.graph.node).most_common()),
        "layers": layers,
        "qdq": graph.qdq(),
        "provenance": {
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
            **{entry.key: entry.value for entry in model.metadata_props},
        },
    }


def load(path: Path) -> Any:
    """The onnx.ModelProto of a file, without external weights. Raises ModelError when it is none."""
    import onnx

    fix = "Name an .onnx file."
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, whose home moves between versions
        raise ModelError(f"{path} is not an ONNX file: {error}", fix) from None
    if not model.graph.node:
        raise ModelError(f"{path} is not an ONNX file: it has no nodes", fix)
    return model


def preprocessing(path: Path) -> dict[str, Any] | None:
    """How a graph says its images are prepared, see `edgekd.export.metadata`; None of one that is not edgekd's."""
    said = {entry.key: entry.value for entry in load(path).metadata_props}.get("edgekd.preprocessing")
    found: dict[str, Any] | None = None if said is None else json.loads(said)
    return found


def signature(model: Any, side: str) -> list[dict[str, Any]]:
    """Of every `input` or `output`: name, numpy's name of its type, and shape with null for what is dynamic."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        {
            "name": value.name,
            "dtype": type_name(value.type.tensor_type.elem_type),
            "shape": [dim.dim_value or None for dim in value.type.tensor_type.shape.dim],
        }
        for value in getattr(model.graph, side)
        if value.name not in constants
    ]


def type_name(element: int) -> str | None:
    """`float32`, `int8` of an onnx.TensorProto type; None where it is undefined."""
    from onnx import TensorProto, helper

    if element == TensorProto.UNDEFINED:
        return None
    return str(helper.tensor_dtype_to_np_dtype(element))


def _locations(tensor: Any) -> list[Any]:
    return [entry for entry in tensor.external_data if entry.key == "location"]


class _Graph:
    """A graph with its types, and the nodes that make its tensors."""

    def __init__(self, graph: Any) -> None:
        self.nodes = list(graph.node)
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            self.types[value.name] = value.type.tensor_type.elem_type

    def layer(self, node: Any) -> dict[str, Any]:
        row = {"name": node.name or node.output[0], "op": node.op_type, "precision": self.precision(node)}
        if node.op_type in WEIGHTED:
            row["weights"] = self.weights(node)
        return row

    def precision(self, node: Any) -> str | None:
        sides = [name for name in node.input[:2] if name] if node.op_type in WEIGHTED else [n for n in node.input if n]
        made = [self.behind(name) for name in sides if not self.is_parameter(node, name)]
        if made and all(source is not None and source.op_type == DQ for source in made):
            return type_name(self.stored(made[0]))
        return type_name(self.types.get(sides[0], 0)) if sides else None

    def is_parameter(self, node: Any, name: str) -> bool:
        """A constant that is no weight: a shape, a limit, an addend."""
        return name in self.constants and node.op_type not in WEIGHTED

    def behind(self, name: str) -> Any:
        """The node that makes a tensor, through those that only move it."""
        made = self.maker.get(name)
        while made is not None and made.op_type in MOVES:
            made = self.maker.get(made.input[0])
        return made

    def stored(self, dequantize: Any) -> int:
        """The type of the integers that a DequantizeLinear reads."""
        zero = dequantize.input[2] if len(dequantize.input) > 2 else ""
        return int(self.types.get(zero) or self.types.get(dequantize.input[0], 0))

    def weights(self, node: Any) -> list[int] | None:
        """The shape of the constant behind a layer's second input."""
        name = node.input[3 if node.op_type.startswith("QLinear") else 1]
        while name not in self.constants and name in self.maker:
            name = self.maker[name].input[0] if self.maker[name].input else ""
        return list(self.constants[name].dims) if name in self.constants else None

    def parameters(self) -> int:
        """Numbers that were learned: constants but for scales, zero points and shapes."""
        quantizers = {name for node in self.nodes if node.op_type in (Q, DQ) for name in node.input[1:]}
        integers = {"int64", "bool"}
        return sum(
            prod(tensor.dims)
            for name, tensor in self.constants.items()
            if name not in quantizers and type_name(tensor.data_type) not in integers
        )

    def qdq(self) -> dict[str, Any]:
        """How many Q and DQ there are, of which types, and how many of them have a scale for every channel."""
        quantizers = [node for node in self.nodes if node.op_type in (Q, DQ)]
        scales = [self.constants[node.input[1]] for node in quantizers if node.input[1] in self.constants]
        types = Counter(type_name(self.stored(node)) for node in quantizers if node.op_type == DQ)
        on_weights = sum(node.op_type == DQ and node.input[0] in self.constants for node in quantizers)
        return {
            Q: sum(node.op_type == Q for node in quantizers),
            DQ: sum(node.op_type == DQ for node in quantizers),
            "weights": on_weights,
            "types": {str(name): count for name, count in types.items()},
            "per_channel": sum(prod(scale.dims) > 1 for scale in scales),
        }
