"""Quantize a student for its runtime: calibrate (PTQ), keep some layers float, train on (QAD), keep what is best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.torch import save
from torch.fx import GraphModule

from edgekd import processes
from edgekd.artifacts import Checkpoint, ModelSpec, OnnxModel
from edgekd.config import QuantizeConfig
from edgekd.data.augment import normalise
from edgekd.errors import ConfigError
from edgekd.models import build_model, load_checkpoint
from edgekd.profile import measure_all
from edgekd.profile.abilities import scheme_for, search_obstacle
from edgekd.profile.device import Device
from edgekd.progress import Progress
from edgekd.quantize import mixed
from edgekd.quantize._judge import Judge
from edgekd.quantize.graph import calibrate, convert, export_quantized, prepare, state_of
from edgekd.quantize.lint import LintReport, lint
from edgekd.quantize.qad import Qad
from edgekd.quantize.schemes._base import layers
from edgekd.stage import write_atomic, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.data import Dataset

__all__ = ["LintReport", "convert", "export_quantized", "lint", "quantize"]

CALIBRATION_BATCH = 64
SIMULATED = 7  # bits below which weights are in no kernel's format; 7 are those of processors without VNNI


def quantize(
    out: Path,
    *,
    student: Checkpoint,
    teacher: ModelSpec,
    data: Dataset,
    device: Device,
    config: QuantizeConfig,
    seed: int,
    opset: int,
    progress: Progress,
) -> Checkpoint:
    """Fill `out` with the quantized checkpoint, `quantize.json` and the ONNX graphs of PTQ and QAD. Resumes.

    QAD runs where PTQ loses more validation top-1 than `qad.tolerance`. Whichever of the two has the better one,
    measured by the runtime on its exported graph, is kept; a tie goes to the lower KL to the teacher and the float
    student (QAD's own loss). The test split is never read.
    """
    row = scheme_for(device, config.scheme)
    options = row.load().options(device, config.weight_bits)
    float_student, float_teacher = load_checkpoint(student), build_model(teacher)
    here = search_obstacle(device) is None
    backend = device.backend if here else "onnxruntime-reference"
    judge = Judge((float_student, float_teacher), (student.spec, teacher), data, device, backend, config.qad)
    images = calibration_images(data, config.calibration, seed)

    def calibrated() -> GraphModule:
        prepared = prepare(float_student, student.spec.input_shape, row.load()(**options))
        parts = (images[i : i + CALIBRATION_BATCH] for i in range(0, len(images), CALIBRATION_BATCH))
        batches = (normalise(part, student.spec.mean, student.spec.std) for part in parts)
        calibrate(prepared, batches, config.calibrator)
        return prepared

    def write(prepared: GraphModule, directory: Path, graph: Path) -> dict[str, Any]:
        """The weights as `directory/model.safetensors`, the graph they make, and what it is worth."""
        directory.mkdir(exist_ok=True)
        example = normalise(data.train.images[:2], student.spec.mean, student.spec.std)
        write_atomic(directory / "model.safetensors", save(state_of(prepared.cpu(), example)))
        export_quantized(Checkpoint(str(directory), student.spec, {}, row.name, options), graph, opset)
        return dict(judge(graph))

    def finish(kind: str, prepared: GraphModule, started: float) -> dict[str, Any]:
        graph = out / f"student-{kind}.onnx"
        figures = write(prepared, out / kind, graph)
        found = lint(graph, row.runtime, waived=row.waived).to_json()
        return {**figures, "lint": found, "seconds": time.perf_counter() - started}

    record: dict[str, Any] = {"scheme": row.name, **options, "calibration": len(images), "fp32": judge.fp32}
    record["measured_with"] = backend
    if options.get("weight_bits", 8) < SIMULATED:
        record["simulated"] = f"{options['weight_bits']}-bit weights in INT8 storage: no runtime executes them as such"
    if config.budget is not None and not here:
        raise ConfigError(
            f"quantize.budget: {row.runtime} is not here, so the latency of layers on {device.name} cannot be measured",
            "Set it to null, or run this where the target is.",
        )
    if config.budget is not None:

        def points(assignments: Sequence[tuple[str, ...]]) -> list[mixed.Point]:
            """Whole graphs, each with these layers float, timed side by side."""
            figures, graphs = [], []
            with progress.task("quantize (mixed precision)", len(assignments)) as task:
                for i, kept in enumerate(assignments):
                    options["kept_float"] = list(kept)
                    graph = out / "mixed" / f"{i}.onnx"
                    figures.append(write(calibrated(), out / "mixed", graph))
                    graphs.append(OnnxModel(str(graph), graph.stem, row.precision, opset, data.input_shape, row.name))
                    task.advance()
            p50 = [report.summary()["p50_ms"] for report in measure_all(graphs, device, runs=mixed.RUNS)]
            return [
                mixed.Point(kept, **f, latency_ms=ms) for kept, f, ms in zip(assignments, figures, p50, strict=True)
            ]

        every = layers(prepare(float_student, student.spec.input_shape, row.load()(**options)))
        found = mixed.search(every, points, judge.fp32["val_top1"], config.budget)
        record["mixed"] = found.to_json()
        options["kept_float"] = list(found.chosen.kept_float)
        for file in (*(out / "mixed").glob("*.onnx"), out / "mixed" / "model.safetensors"):
            file.unlink()
        (out / "mixed").rmdir()

    started = time.perf_counter()
    with progress.task("quantize (PTQ)", len(images)) as task:
        prepared = calibrated()
        task.advance(len(images))
    record |= {**options, "ptq": finish("ptq", prepared, started), "chosen": "ptq"}
    gap, allowed = judge.fp32["val_top1"] - record["ptq"]["val_top1"], config.qad.tolerance
    if config.qad.epochs > 0 and allowed is not None and gap <= allowed:
        where = f"{abs(100 * gap):.2f} points {'below' if gap > 0 else 'above'} FP32"
        record["qad_skipped"] = f"PTQ is {where}, and {100 * allowed:g} below are allowed"
        progress.note(f"QAD skipped: {record['qad_skipped']}")
    elif config.qad.epochs > 0:
        started = time.perf_counter()
        for network in (prepared, float_student, float_teacher):
            network.to(processes.device())
        normalisations = ((student.spec.mean, student.spec.std), (teacher.mean, teacher.std))
        qad = Qad(out, prepared, float_student, float_teacher, normalisations, judge, data, config.qad, seed)
        figures = qad.fit(progress)
        record["qad"] = {**finish("qad", prepared, started), **figures}
        scores = {kind: (record[kind]["val_top1"], -record[kind]["val_kl"]) for kind in ("ptq", "qad")}
        record["chosen"] = max(scores, key=lambda kind: scores[kind])

    chosen = record["chosen"]
    write_atomic(out / "model.safetensors", (out / chosen / "model.safetensors").read_bytes())
    metrics = {key: record[chosen][key] for key in ("val_top1", "val_kl")}
    checkpoint = Checkpoint(str(out), replace(student.spec, weights=None), metrics, row.name, options)
    checkpoint.save()
    write_json(out / "quantize.json", record)
    for kind in ("ptq", "qad"):
        (out / kind / "model.safetensors").unlink(missing_ok=True)
        if (out / kind).is_dir():
            (out / kind).rmdir()
    (out / "qad.pt").unlink(missing_ok=True)
    return checkpoint


def calibration_images(data: Dataset, n: int, seed: int) -> NDArray[np.uint8]:
    """`n` training images, not augmented, drawn from the seed: [n, H, W, C]. Raises ConfigError for one class alone."""
    order = np.random.default_rng([*b"calibration", seed]).permutation(len(data.train))
    chosen = np.sort(order[:n])
    (first, *others) = np.unique(data.train.labels[chosen])
    if not others:
        raise ConfigError(
            f"quantize.calibration: its {len(chosen)} images are all of class {data.classes[int(first)]}",
            "Raise it: ranges have to hold for every class.",
        )
    return data.train.images[chosen]
