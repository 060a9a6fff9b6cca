"""What an ONNX graph asks of TensorRT, read from the file; and the refusals that need no TensorRT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.catalog import parsed_opset
from edgekd.describe.plan import not_onnx
from edgekd.errors import ConfigError, ModelError, TargetError
from edgekd.profile.devices import Device
from edgekd.quantize.lint.rules import DQ, formats

if TYPE_CHECKING:
    from edgekd.export.tensorrt.request import BuildRequest

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


def check_target(request: BuildRequest, device: Device) -> None:
    """Raises an InputError for what no TensorRT can build for `device`, whatever its version."""
    graph, name = request.graph, request.graph.path.name
    if graph.foreign:
        more = f" and {len(graph.foreign) - 1} more" if len(graph.foreign) > 1 else ""
        raise ModelError(
            f"{name} has an operator that is not ONNX's own: {graph.foreign[0]}{more}",
            "Export it without a runtime's fused operators; a plugin of your own is for trtexec --staticPlugins.",
        )
    missing = sorted(graph.formats - set(device.formats))
    if missing:
        raise TargetError(
            f"{name} has {' and '.join(missing)}, which {device.name} ({device.sm}) has not",
            f"Quantize for that target: it takes {', '.join(device.formats)}.",
        )
    for tensor, shape in graph.inputs.items():
        if None in shape[1:]:
            raise ModelError(
                f"{name} has a dynamic side besides the batch: {tensor} {_write(shape)}",
                "Export it for one image size.",
            )
        if shape[:1] == (None,) and request.batch is None:
            raise ConfigError(
                f"{name} has a dynamic batch ({tensor} {_write(shape)}), and no optimization profile says which",
                "Add --batch MIN,OPT,MAX, such as --batch 1,8,32, or --batch 1.",
            )
    fixed = [f"{tensor} {_write(shape)}" for tensor, shape in graph.inputs.items() if None not in shape]
    if request.batch is not None and fixed and not request.shapes(1):
        raise ConfigError(f"--batch: the batch of {name} is fixed ({fixed[0]})", "Leave it out.")
    if request.hardware is not None and device.kind == "jetson":
        raise TargetError(
            f"--hardware {request.hardware}: Jetsons have no hardware-compatible engines, and {device.name} is one",
            "Leave it out, and build on each kind of board.",
        )
    if request.dla is not None:
        _check_dla(request, device)


def _check_dla(request: BuildRequest, device: Device) -> None:
    figure = device.figures.get("dla_cores")
    cores = int(figure.value) if figure is not None else 0
    if not 0 <= (request.dla or 0) < cores:
        raise TargetError(
            f"--dla {request.dla}: {device.name} has {cores or 'no'} DLA cores", "Leave it out to build for the GPU."
        )
    quantized = request.graph.formats - {"fp16"}
    if quantized:
        raise ModelError(
            f"--dla: {request.graph.path.name} has {', '.join(sorted(quantized))} Q/DQ, which a DLA does not take",
            "Export the student with the scheme fp16.",
        )
    if request.batch is not None and len(set(request.batch)) > 1:
        raise ConfigError(
            f"--batch {','.join(map(str, request.batch))}: a DLA takes one size", "Write one number, as in --batch 1."
        )


def check_version(request: BuildRequest, version: tuple[int, ...]) -> None:
    """Raises a ModelError or ConfigError for what TensorRT `version` cannot build."""
    graph, written = request.graph, ".".join(map(str, version))
    newest = parsed_opset(version)
    if graph.opset > newest:
        quantized_halves = graph.typed and graph.formats != {"fp16"}  # their scales need opset 19
        raise ModelError(
            f"{graph.path.name} has opset {graph.opset}, and TensorRT {written} parses up to {newest}",
            "Quantize with the scheme tensorrt or fp16." if quantized_halves else f"Export it with --opset {newest}.",
        )
    if version < (10,) and graph.int8_constants:
        raise ModelError(
            f"{graph.path.name} stores its weights as INT8, and TensorRT {written} takes no such constants",
            f"Export it with --opset {newest}: it stores them as float, and the engine still as INT8.",
        )
    if version < (10,) and "fp8" in graph.formats:
        raise ModelError(
            f"{graph.path.name} is FP8, and TensorRT {written} has none", "It is in TensorRT 10 and later."
        )
    if version < (8, 6) and (request.version_compatible or request.hardware):
        raise ConfigError(f"TensorRT {written} builds no compatible engines", "They begin with TensorRT 8.6.")
    if version < (10, 9) and request.hardware == "same":
        raise ConfigError(f"--hardware same: TensorRT {written} does not know it", "It begins with TensorRT 10.9.")
    if request.dla is not None and version >= (11,) and not graph.typed:
        raise ModelError(
            f"--dla: {graph.path.name} is FP32, which a DLA does not take, and TensorRT {written} changes no types",
            "Export the student with the scheme fp16.",
        )
    if request.dla is not None and (10, 8) <= version < (11, 4, 1):
        raise ConfigError(
            f"--dla: TensorRT {written} has no DLA; 10.7 was the last before 11.4.1", "Leave it out, or take either."
        )


def _shape(value: Any) -> tuple[int | None, ...]:
    return tuple(side.dim_value if side.HasField("dim_value") else None for side in value.type.tensor_type.shape.dim)


def _write(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if side is None else str(side) for side in shape)


def _cast_to(graph: Any) -> list[int]:
    return [a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute if a.name == "to"]
