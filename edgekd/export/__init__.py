"""Write the graphs that deploy, and prove that each computes what its checkpoint computes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from edgekd.artifacts import Checkpoint, ModelSpec, OnnxModel
from edgekd.catalog import SCHEMES
from edgekd.config import ExportConfig
from edgekd.errors import ModelError
from edgekd.export import parity
from edgekd.export.metadata import describe
from edgekd.export.onnx import export_fp32
from edgekd.export.signature import sign
from edgekd.models import build_model, load_checkpoint
from edgekd.profile import predict
from edgekd.profile.abilities import opset_for
from edgekd.profile.device import Device
from edgekd.progress import Progress
from edgekd.stage import write_atomic, write_json
from edgekd.tasks.classification import predict_torch

if TYPE_CHECKING:
    from edgekd.data import Dataset

__all__ = ["export", "export_fp32", "write_teacher"]


def write_teacher(
    spec: ModelSpec,
    path: Path,
    opset: int,
    classes: Sequence[str] | None = None,
    config: ExportConfig | None = None,
) -> nn.Module:
    """The teacher as ONNX, a copy where it is an ONNX file already; returns the network. Raises ModelError."""
    network, config = build_model(spec), config or ExportConfig()
    if spec.source != "onnx":
        metadata = describe(spec, spec.fingerprint(), classes, config)
        export_fp32(network, path, spec.input_shape, opset, metadata=metadata)
        sign(path, spec, config)
    elif spec.resize is None:
        write_atomic(path, Path(str(spec.weights)).read_bytes())
    else:
        raise ModelError(
            f"teacher {spec.name}.onnx takes images of {spec.resize} pixels and cannot be measured on others",
            "Export it with a Resize before it, or name its torch weights.",
        )
    return network


def export(
    out: Path,
    *,
    teacher: ModelSpec,
    student: Checkpoint,
    quantized: Checkpoint,
    data: Dataset,
    taken: Dataset,
    device: Device,
    config: ExportConfig,
    progress: Progress,
) -> list[OnnxModel]:
    """Fill `out` with teacher.onnx, student-fp32.onnx, the quantized student and export.json, their records.

    `taken` is `data` in the size that the graphs take, which resize it. Parity is measured on validation images by the
    runtime that ships. Raises ParityError when a graph and its checkpoint differ.
    """
    # the quantizer exports through this package, which therefore cannot import it first
    from edgekd.quantize import convert, export_quantized, lint

    row, images = SCHEMES[str(quantized.scheme)], taken.val.images[: parity.IMAGES]
    # PyTorch's bilinear filter is ONNX's; that it follows the normalisation here makes no difference to a weighted mean
    resize = [] if config.resize is None else [nn.Upsample(size=data.input_shape[1:], mode="bilinear")]
    opset = opset_for(device, row.name, config.opset)
    models: list[OnnxModel] = []
    records: list[dict[str, Any]] = []

    def prove(name: str, artifact: str, spec: ModelSpec, reference: nn.Module, scheme: str | None) -> None:
        path, precision = out / name, "fp32" if scheme is None else row.precision
        model = OnnxModel(str(path), artifact, precision, opset, taken.input_shape, scheme)
        expected = predict_torch(nn.Sequential(*resize, reference), images, spec.mean, spec.std)
        got = predict(model, images, spec.mean, spec.std, device)
        model = replace(model, parity=parity.check(path, precision, got, expected))
        models.append(model)
        record = {**model.to_json(), "path": name, "seconds": time.perf_counter() - started}
        if scheme is not None:
            record["lint"] = lint(path, row.runtime, waived=row.waived).to_json()
        records.append(record)

    with progress.task("export", 3) as task:
        floats = (("teacher", "teacher", teacher, None), ("student-fp32", "onnx-fp32", student.spec, student))
        for stem, artifact, spec, checkpoint in floats:
            started = time.perf_counter()
            if checkpoint is None:
                network = write_teacher(spec, out / f"{stem}.onnx", opset, data.classes, config)
            else:
                network = load_checkpoint(checkpoint)
                metadata = describe(spec, checkpoint.fingerprint(), data.classes, config)
                export_fp32(network, out / f"{stem}.onnx", data.input_shape, opset, metadata=metadata)
                sign(out / f"{stem}.onnx", spec, config)
            prove(f"{stem}.onnx", artifact, spec, network, None)
            task.advance()
        started = time.perf_counter()
        name = f"student-{row.precision}.onnx"
        metadata = describe(quantized.spec, quantized.fingerprint(), data.classes, config)
        export_quantized(quantized, out / name, opset, metadata=metadata)
        sign(out / name, quantized.spec, config)
        prove(name, f"onnx-{row.precision}", quantized.spec, convert(quantized), quantized.scheme)
        task.advance()
    write_json(out / "export.json", records)
    return models
