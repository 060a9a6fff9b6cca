"""What a graph and a request ask of TensorRT that it cannot do, said without a TensorRT."""

from __future__ import annotations

from edgekd.catalog import parsed_opset
from edgekd.errors import ConfigError, ModelError, TargetError
from edgekd.export.tensorrt.request import BuildRequest
from edgekd.profile.device import Device


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


def _write(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if side is None else str(side) for side in shape)
