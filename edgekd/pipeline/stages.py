"""One function a stage: what it is given, and the directory it fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgekd.artifacts import Checkpoint, ModelSpec, OnnxModel
from edgekd.pipeline.inputs import Inputs
from edgekd.progress import Progress


def teacher(inputs: Inputs, out: Path, progress: Progress) -> None:
    from edgekd.distill import train_teacher

    train_teacher(
        out,
        spec=inputs.teacher_spec,
        data=inputs.data,
        config=inputs.config.teacher,
        seed=inputs.config.seed,
        progress=progress,
    )


def search(inputs: Inputs, out: Path, progress: Progress) -> None:
    from edgekd.search import search

    search(
        out,
        teacher=inputs.teacher,
        data=inputs.data,
        device=inputs.device,
        config=inputs.config.search,
        latency=inputs.config.latency,
        seed=inputs.config.seed,
        progress=progress,
        train=partial(_train_shortly, inputs, progress, out / "calibration" / "replay"),
    )


def distill(inputs: Inputs, out: Path, progress: Progress) -> None:
    from edgekd.distill import distill

    distill(
        out,
        teacher=inputs.teacher,
        student=inputs.student,
        data=inputs.data,
        config=inputs.config.distill,
        seed=inputs.config.seed,
        progress=progress,
        others=inputs.others,
    )


def quantize(inputs: Inputs, out: Path, progress: Progress) -> None:
    from edgekd.quantize import quantize

    quantize(
        out,
        student=Checkpoint.load(inputs.out / "distill"),
        teacher=inputs.teacher,
        data=inputs.data,
        device=inputs.device,
        config=inputs.config.quantize,
        seed=inputs.config.seed,
        opset=inputs.opset,
        progress=progress,
    )


def export(inputs: Inputs, out: Path, progress: Progress) -> None:
    from edgekd.export import export
    from edgekd.report.ledger import measure_ledger

    student, quantized = Checkpoint.load(inputs.out / "distill"), Checkpoint.load(inputs.out / "quantize")
    taken = inputs.data if inputs.config.export.resize is None else inputs.load(inputs.config.export.resize)
    models = export(
        out,
        teacher=inputs.teacher,
        student=student,
        quantized=quantized,
        data=inputs.data,
        taken=taken,
        device=inputs.device,
        config=inputs.config.export,
        progress=progress,
    )
    by_name = {model.artifact: model for model in models}
    (shipped,) = (model for model in models if model.scheme is not None)
    measure_ledger(
        out,
        teacher=by_name["teacher"],
        teacher_spec=inputs.teacher,
        student=student,
        ptq=_quantized_graph(inputs, "ptq", shipped),
        qad=_quantized_graph(inputs, "qad", shipped),
        fp32=by_name["onnx-fp32"],
        shipped=shipped,
        data=inputs.data,
        taken=taken,
        device=inputs.device,
        progress=progress,
    )


def profile(inputs: Inputs, out: Path, progress: Progress) -> None:
    from edgekd.profile import profile

    profile(out, models=inputs.exported, device=inputs.device, config=inputs.config.profile, progress=progress)


FILL: Mapping[str, Callable[[Inputs, Path, Progress], None]] = {
    stage.__name__: stage for stage in (teacher, search, distill, quantize, export, profile)
}


def _train_shortly(inputs: Inputs, progress: Progress, store: Path, out: Path, student: ModelSpec) -> float:
    """Validation top-1 of a student after `search.calibration_epochs`; a finished one is not trained again."""
    from edgekd.distill import distill

    if (out / "checkpoint.json").is_file():
        return Checkpoint.load(out).metrics["val_top1"]
    config, epochs = inputs.config.distill, inputs.config.search.calibration_epochs
    fewer = {"views": min(config.views, epochs), "warmup_epochs": min(config.warmup_epochs, epochs / 4)}
    short = config.model_copy(update={"epochs": epochs, "store": config.store or str(store), **fewer})
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = distill(
        out,
        teacher=inputs.teacher,
        student=student,
        data=inputs.data,
        config=short,
        seed=inputs.config.seed,
        progress=progress,
        others=inputs.others,
    )
    return checkpoint.metrics["val_top1"]


def _quantized_graph(inputs: Inputs, kind: str, like: OnnxModel) -> OnnxModel | None:
    """The graph of a quantization step that need not be the one that ships."""
    path = inputs.out / "quantize" / f"student-{kind}.onnx"
    return replace(like, path=str(path), artifact=f"student-{kind}") if path.is_file() else None
