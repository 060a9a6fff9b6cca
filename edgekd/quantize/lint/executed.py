"""What ONNX Runtime really executes for a Q/DQ graph on this processor."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx

from edgekd.errors import BackendError
from edgekd.quantize.lint.rules import Graph

# Operators of the exported graph, and what ONNX Runtime executes for them in integers.
KINDS = {
    "conv": ({"Conv"}, {"QLinearConv", "ConvInteger"}),
    "add": ({"Add"}, {"QLinearAdd"}),
    "gemm": ({"Gemm", "MatMul"}, {"QGemm", "QLinearMatMul", "MatMulIntegerToFloat"}),
}
MOVES = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Pad", "Concat", "Identity"}
FLOAT_OUTPUT = {"DequantizeLinear", "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}


def optimised(path: Path) -> Any:
    """The graph after ONNX Runtime's optimizations on this processor. Raises BackendError when it takes none."""
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


def counts(exported: Any, executed: Any) -> dict[str, tuple[int, int]]:
    """For every kind of `KINDS`: how many are executed in integers, of how many that were exported."""
    graph = Graph(exported)
    nodes = [
        *graph.weighted(),
        *(n for n in graph.nodes if n.op_type == "Add" and not graph.tensors.keys() & set(n.input)),
    ]
    return {
        name: (sum(n.op_type in after for n in executed.graph.node), sum(n.op_type in before for n in nodes))
        for name, (before, after) in KINDS.items()
    }


def islands(executed: Any) -> list[list[str]]:
    """Connected float operators, moves apart: the operators of each."""
    constant = {tensor.name for tensor in executed.graph.initializer}
    island: dict[str, list[str]] = {value.name: [] for value in executed.graph.input if _is_float(value)}
    found: list[list[str]] = []
    for node in executed.graph.node:
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
    return [ops for ops in found if set(ops) - MOVES]


def _is_float(value: Any) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)
