"""What an ONNX graph asks of TensorRT, read from the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.describe.plan import not_onnx
from edgekd.errors import ModelError
from edgekd.quantize.lint.rules import DQ, formats

if TYPE_CHECKING:
    pass

STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class OnnxGraph:
    """A graph as a builder meets it: `inputs` by name, None for a dynamic side.

    `formats` are those of its Q/DQ, and fp16 where tensors are. `foreign` lists operators of other domains than ONNX,
    `int8_constants` whether weights are stored as integers.
    """

    path: Path
    opset: int
    inputs: dict[str, tuple[int | None, ...]]
    formats: frozenset[str]
    foreign: tuple[str, ...] = ()
    int8_constants: bool = False

    @property
    def typed(self) -> bool:
        """Whether the graph itself says what is not FP32: a builder that chooses types must not choose others."""
        return bool(self.formats & {"fp16", "fp8"})


def read_graph(path: Path) -> OnnxGraph:
    """Read an ONNX file. Raises ModelError where it is none, or tensors beside it are missing."""
    import onnx

    if not path.is_file():
        raise ModelError(f"{path} {'is a directory' if path.is_dir() else 'does not exist'}", "Name an .onnx file.")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, whose home moves between versions
        raise not_onnx(path, error) from None
    graph = model.graph
    files = {e.value for t in graph.initializer for e in t.external_data if e.key == "location"}
    missing = sorted(name for name in files if not (path.parent / name).is_file())
    if missing:
        raise ModelError(f"{path} keeps tensors in {missing[0]}, which is not beside it", "Copy it there too.")
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    halves = onnx.TensorProto.FLOAT16 in {*stored.values(), *_cast_to(graph)}
    functions = {function.domain for function in model.functions}
    foreign = [
        f"{node.op_type} of {node.domain} ({node.name})"
        for node in graph.node
        if node.domain not in STANDARD and node.domain not in functions
    ]
    return OnnxGraph(
        path=path,
        opset=next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 0),
        inputs={value.name: _shape(value) for value in graph.input if value.name not in stored},
        formats=frozenset(formats(model)) | ({"fp16"} if halves else set()),
        foreign=tuple(foreign),
        int8_constants=any(n.op_type == DQ and stored.get(n.input[0]) == onnx.TensorProto.INT8 for n in graph.node),
    )


def _shape(value: Any) -> tuple[int | None, ...]:
    return tuple(side.dim_value if side.HasField("dim_value") else None for side in value.type.tensor_type.shape.dim)


def _cast_to(graph: Any) -> list[int]:
    return [a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute if a.name == "to"]
