"""Does the INT8 graph run in INT8? A lint of the exported Q/DQ graph, and of the graph ONNX Runtime really executes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.errors import BackendError

# Operators of the exported graph, and what ONNX Runtime executes for them in integers.
KINDS = {
    "conv": ({"Conv"}, {"QLinearConv", "ConvInteger"}),
    "add": ({"Add"}, {"QLinearAdd"}),
    "gemm": ({"Gemm", "MatMul"}, {"QGemm", "QLinearMatMul", "MatMulIntegerToFloat"}),
}
WORDS = {"conv": "convolutions INT8", "add": "adds", "gemm": "linear layers"}
MOVES = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Pad", "Concat", "Identity"}
FLOAT_OUTPUT = {"DequantizeLinear", "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}


@dataclass(frozen=True)
class LintReport:
    """Pairs are [executed in integers by ONNX Runtime, of all that were exported].

    `float_islands` lists the connected float operators that ONNX Runtime executes, such as `ReduceMean+Softmax`;
    `problems` says what is wrong with the exported graph, a line each.
    """

    conv: tuple[int, int]
    add: tuple[int, int]
    gemm: tuple[int, int]
    float_islands: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def line(self) -> str:
        """`20/20 convolutions INT8, 9/9 adds, 1/1 linear layers, 0 float islands`."""
        counts = [f"{n}/{of} {WORDS[kind]}" for kind in KINDS for n, of in [getattr(self, kind)] if of]
        return ", ".join([*counts, f"{len(self.float_islands)} float islands"])

    @property
    def ok(self) -> bool:
        whole = all(n == of for n, of in (self.conv, self.add, self.gemm))
        return whole and not self.problems and not self.float_islands

    def to_json(self) -> dict[str, Any]:
        record = {key: list(value) for key, value in asdict(self).items()}
        return {**record, "line": self.line, "ok": self.ok}


def lint(path: Path | str) -> LintReport:
    """Lint any ONNX file. Raises BackendError when ONNX Runtime does not take it."""
    exported = onnx.load(str(path), load_external_data=False)
    executed = _executed(Path(path))
    constant = {tensor.name for tensor in exported.graph.initializer}
    values = [node for node in exported.graph.node if node.op_type != "Add" or not constant & set(node.input)]
    counts = {
        name: (sum(n.op_type in after for n in executed.graph.node), sum(n.op_type in before for n in values))
        for name, (before, after) in KINDS.items()
    }
    return LintReport(**counts, float_islands=tuple(_islands(executed)), problems=tuple(_problems(exported)))


def _problems(model: Any) -> Iterable[str]:
    """What keeps an exported Q/DQ graph from running in integers, or makes it wrong."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    external = [t.name for t in tensors.values() if t.data_location == onnx.TensorProto.EXTERNAL]
    if external:
        yield f"{len(external)} tensors lie outside the file, such as {external[0]}"
        return
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in tensors:
            scale = numpy_helper.to_array(tensors[node.input[1]])
            if not (np.isfinite(scale).all() and (scale > 0).all()):
                yield f"{node.name}: a scale is {scale.min()}"
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        data, weight = (makers.get(name) for name in node.input[:2])
        if data is None or data.op_type != "DequantizeLinear":
            yield f"{node.name}: the input of this {node.op_type} is float"
        if weight is None or weight.op_type != "DequantizeLinear" or weight.input[0] not in tensors:
            yield f"{node.name}: the weights of this {node.op_type} are not stored as INT8"
        else:
            yield from _weight_problems(node, weight, tensors)
        bias = node.input[2] if len(node.input) > 2 else ""
        if node.op_type == "Gemm" and bias in tensors and tensors[bias].data_type == onnx.TensorProto.FLOAT:
            yield f"{node.name}: a float bias keeps this Gemm in float"


def _weight_problems(node: Any, weight: Any, tensors: dict[str, Any]) -> Iterable[str]:
    values, scale = tensors[weight.input[0]], numpy_helper.to_array(tensors[weight.input[1]])
    axis = next((helper.get_attribute_value(a) for a in weight.attribute if a.name == "axis"), 1)
    if values.data_type != onnx.TensorProto.INT8:
        yield f"{node.name}: weights are not INT8"
    if scale.size != values.dims[0] or (scale.ndim == 1 and axis != 0):
        yield f"{node.name}: weights have {scale.size} scales on axis {axis}, not one per output channel"
    if len(weight.input) > 2 and weight.input[2] in tensors and numpy_helper.to_array(tensors[weight.input[2]]).any():
        yield f"{node.name}: weights have a zero point that is not 0"


def _executed(path: Path) -> Any:
    """The graph after ONNX Runtime's optimizations on this processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # it warns that such a file fits this processor only, which is the point
    with tempfile.TemporaryDirectory() as directory:
        options.optimized_model_filepath = str(Path(directory) / "executed.onnx")
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no common base class
            raise BackendError(
                f"ONNX Runtime refused {path}: {error}", "Export it again with another opset."
            ) from error
        return onnx.load(options.optimized_model_filepath, load_external_data=False)


def _islands(model: Any) -> list[str]:
    """Connected float operators, moves apart: `Op+Op` each, cut after the sixth."""
    constant = {tensor.name for tensor in model.graph.initializer}
    island: dict[str, list[str]] = {value.name: [] for value in model.graph.input if _is_float(value)}
    found: list[list[str]] = []
    for node in model.graph.node:
        inputs = [name for name in node.input if name in island and name not in constant]
        if node.op_type in FLOAT_OUTPUT:
            island |= {name: [] for name in node.output}  # float again, of no island yet
        elif node.op_type != "QuantizeLinear" and inputs:
            whole: list[str] = []
            for part in {id(island[name]): island[name] for name in inputs if island[name]}.values():
                whole += part
                found = [ops for ops in found if ops is not part]
                island = {name: whole if ops is part else ops for name, ops in island.items()}
            whole.append(node.op_type)
            found.append(whole)
            island |= dict.fromkeys(node.output, whole)
    computing = [ops for ops in found if set(ops) - MOVES]
    return ["+".join(ops if len(ops) <= 6 else [*ops[:6], f"{len(ops) - 6} more"]) for ops in computing]


def _is_float(value: Any) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)
