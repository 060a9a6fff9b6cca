"""One stage on an artifact, without a run: the checkpoint or graph comes from a path instead of the stage before.

Each fills `OUT/<stage>/` like the same stage of a run does: whole or absent, resumed, and cached when asked again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgekd.artifacts import Checkpoint, OnnxModel
from edgekd.catalog import SCHEMES
from edgekd.config import ExportConfig, RunConfig
from edgekd.errors import ModelError
from edgekd.progress import NullProgress, Progress
from edgekd.stage import RunDirectory, write_json

if TYPE_CHECKING:
    from edgekd.profile.device import Device


def quantize_checkpoint(
    path: Path, out: Path, config: RunConfig, *, force: bool = False, progress: Progress | None = None
) -> Checkpoint:
    """The FP32 checkpoint at `path` as INT8 in `out/quantize/`.

    Without `config.teacher.source` the checkpoint is its own teacher in the quantization-aware epochs. Raises
    ModelError when it is quantized already or does not fit the data.
    """
    from edgekd.data import load_dataset
    from edgekd.models import resolve_teacher
    from edgekd.profile.abilities import opset_for, scheme_for
    from edgekd.profile.devices import load_device
    from edgekd.quantize import quantize

    device = load_device(config.target)
    scheme = scheme_for(device, config.quantize.scheme)
    opset = opset_for(device, scheme.name, config.export.opset)
    student = Checkpoint.load(path)
    if student.scheme is not None:
        raise ModelError(f"{path} is quantized already (scheme {student.scheme})", "Name a directory distill wrote.")
    data = load_dataset(config.data, val_fraction=config.val_fraction, seed=config.seed, image_size=config.image_size)
    if (student.spec.num_classes, student.spec.input_shape) != (data.num_classes, data.input_shape):
        raise ModelError(
            f"{path} is for {student.spec.num_classes} classes of {student.spec.input_shape} images, "
            f"--data {config.data} has {data.num_classes} of {data.input_shape}",
            "Name the data it was distilled on.",
        )
    teacher = (
        resolve_teacher(config.teacher, data)
        if config.teacher.source is not None
        else replace(student.spec, weights=str(student.weights))
    )
    inputs = {
        "student": student.fingerprint(),
        "teacher": teacher.fingerprint(),
        "data": data.digest,
        "device": device.fingerprint(),
        "config": config.quantize.model_dump(mode="json"),
        "seed": config.seed,
        "opset": opset,
    }

    def fill(partial: Path) -> None:
        quantize(
            partial,
            student=student,
            teacher=teacher,
            data=data,
            device=device,
            config=config.quantize,
            seed=config.seed,
            opset=opset,
            progress=progress or NullProgress(),
        )

    with RunDirectory(out).locked() as run:
        return Checkpoint.load(run.run("quantize", inputs, fill, force=force).path)


def export_checkpoint(
    path: Path, out: Path, config: ExportConfig, *, target: str | None = None, force: bool = False
) -> OnnxModel:
    """The checkpoint at `path`, FP32 or quantized, as `out/export/student-PRECISION.onnx`.

    The opset is what `target` takes. Raises ConfigError where its runtime has no use for the checkpoint's scheme.
    """
    from edgekd.export import export_fp32
    from edgekd.export.metadata import describe
    from edgekd.export.signature import sign
    from edgekd.models import load_checkpoint
    from edgekd.profile.abilities import opset_for, scheme_for
    from edgekd.profile.devices import load_device
    from edgekd.quantize import export_quantized

    checkpoint, device = Checkpoint.load(path), load_device(target) if target is not None else None
    if device is not None and checkpoint.scheme is not None:
        scheme_for(device, checkpoint.scheme)
    opset = opset_for(device, checkpoint.scheme, config.opset)
    precision = "fp32" if checkpoint.scheme is None else SCHEMES[checkpoint.scheme].precision
    metadata = describe(checkpoint.spec, checkpoint.fingerprint(), config=config)
    channels, height, width = checkpoint.spec.input_shape
    model = OnnxModel(
        path=f"student-{precision}.onnx",
        artifact=f"onnx-{precision}",
        precision=precision,
        opset=opset,
        input_shape=(channels, config.resize or height, config.resize or width),
        scheme=checkpoint.scheme,
    )

    def fill(partial: Path) -> None:
        file = partial / model.path
        if checkpoint.scheme is None:
            export_fp32(load_checkpoint(checkpoint), file, checkpoint.spec.input_shape, opset, metadata=metadata)
        else:
            export_quantized(checkpoint, file, opset, metadata=metadata)
        sign(file, checkpoint.spec, config)
        write_json(partial / "export.json", [model.to_json()])

    with RunDirectory(out).locked() as run:
        made = config.model_dump(mode="json", exclude={"opset"})
        inputs = {"checkpoint": checkpoint.fingerprint(), "opset": opset, "metadata": metadata, "config": made}
        result = run.run("export", inputs, fill, force=force)
    return replace(model, path=str(result.path / model.path))


def lint_onnx(path: Path, target: str, *, build: bool = True) -> dict[str, Any]:
    """What keeps a Q/DQ graph, whoever made it, from running in its format on `target`.

    The record of the lint, and `builder`: what NVIDIA's parser and builder say for the target's SM, or why they were
    not asked; `clean` is False where either found something.
    """
    from edgekd.profile.devices import load_device
    from edgekd.quantize.lint import lint

    device = load_device(target)
    runtime = SCHEMES[device.scheme].runtime
    read_onnx(path)
    report = lint(path, runtime, device=device)
    record: dict[str, Any] = {"model": str(path), "target": device.name, "runtime": runtime, **report.to_json()}
    if runtime == "tensorrt":
        record["builder"] = _word_of_builder(path, device) if build else {"skipped": "--no-build"}
    record["clean"] = report.clean and "refused" not in record.get("builder", {})
    return record


def _word_of_builder(path: Path, device: Device) -> dict[str, Any]:
    """What TensorRT-RTX, which needs no GPU, makes of a graph at batch 1."""
    from edgekd.errors import EdgekdError
    from edgekd.export import tensorrt

    builder = tensorrt.BUILDERS["tensorrt-rtx"]
    why = builder.unable(device)
    if why is not None:
        return {"skipped": why}
    graph = tensorrt.read_graph(path)
    batch = (1, 1, 1) if any(shape[:1] == (None,) for shape in graph.inputs.values()) else None
    request = tensorrt.BuildRequest(graph=graph, compute_capability=device.sm_number, batch=batch)
    with TemporaryDirectory() as directory:
        try:
            built = tensorrt.build(request, device, builder, Path(directory) / "plan", Path(directory) / "log")
        except EdgekdError as error:
            return {"refused": error.what}
    return {
        "compute_capability": built.compute_capability,
        "plan_bytes": built.header.bytes,
        "seconds": built.seconds,
        "version": built.version,
        "warnings": list(built.log.warnings),
    }


def read_onnx(path: Path) -> OnnxModel:
    """Describe an ONNX file with one input [B, C, H, W]. Raises ModelError when it is not one."""
    import onnx

    if not path.is_file():
        kind = "is a directory" if path.is_dir() else "does not exist"
        raise ModelError(f"{path} {kind}", "Name an .onnx file.")
    try:
        graph = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, whose home moves between versions
        from edgekd.describe.plan import not_onnx

        raise not_onnx(path, error) from None
    weights = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in weights]
    shape = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    if len(shape) != 4 or 0 in shape[1:]:
        raise ModelError(f"{path} does not have one input [batch, C, H, W]", "Export it with a fixed image size.")
    quantized = any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.graph.node)
    precision = "int8" if quantized else "fp32"
    return OnnxModel(
        path=str(path),
        artifact=path.name,
        precision=precision,
        opset=next((entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")), 0),
        input_shape=(shape[1], shape[2], shape[3]),
    )
