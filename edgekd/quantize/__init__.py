"""Quantize a student for its runtime: calibrate (PTQ), train on (QAD), and keep the better of the two on validation."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch.fx import GraphModule

from edgekd import processes
from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.catalog import SCHEMES, find
from edgekd.config import QuantizeConfig
from edgekd.data.augment import normalise
from edgekd.distill.methods.kd import kd_loss
from edgekd.models import build_model, load_checkpoint
from edgekd.profile import predict
from edgekd.profile.devices import Device
from edgekd.progress import Progress
from edgekd.quantize.graph import calibrate, convert, export_quantized, prepare, state_of
from edgekd.quantize.lint import LintReport, lint
from edgekd.quantize.qad import Qad
from edgekd.quantize.schemes._base import Scheme
from edgekd.stage import write_atomic, write_json
from edgekd.tasks.classification import predict_torch, top1

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.data import Dataset

__all__ = ["LintReport", "convert", "export_quantized", "lint", "quantize"]

CALIBRATION_BATCH = 64


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

    Whichever of the two has the better validation top-1, measured by the runtime on its exported graph, is kept; a tie
    goes to the lower KL to the teacher and the float student (QAD's own loss). The test split is never read.
    """
    row = find(SCHEMES, "quantize.scheme", config.scheme or device.scheme)
    options = row.load().options(device)
    scheme: Scheme = row.load()(**options)
    target = processes.device()
    float_student, float_teacher = load_checkpoint(student), build_model(teacher)
    judge = _Judge(float_student, student.spec, float_teacher, teacher, data, device, config)

    def finish(kind: str, prepared: GraphModule, started: float) -> dict[str, Any]:
        """Write `kind`'s weights and graph, and measure the graph."""
        directory = out / kind
        directory.mkdir(exist_ok=True)
        example = normalise(data.train.images[:2], student.spec.mean, student.spec.std)
        write_atomic(directory / "model.safetensors", save(state_of(prepared.cpu(), example)))
        graph = out / f"student-{kind}.onnx"
        export_quantized(Checkpoint(str(directory), student.spec, {}, row.name, options), graph, opset)
        return {**judge(graph), "lint": lint(graph).to_json(), "seconds": time.perf_counter() - started}

    started = time.perf_counter()
    images = _calibration(data, config.calibration, seed)
    with progress.task("quantize (PTQ)", len(images)) as task:
        prepared = prepare(float_student, student.spec.input_shape, scheme)
        parts = [images[i : i + CALIBRATION_BATCH] for i in range(0, len(images), CALIBRATION_BATCH)]
        calibrate(prepared, (normalise(part, student.spec.mean, student.spec.std) for part in parts))
        task.advance(len(images))
    record: dict[str, Any] = {"scheme": row.name, **options, "calibration": len(images), "fp32": judge.fp32}
    record["ptq"] = finish("ptq", prepared, started)
    record["chosen"] = "ptq"
    gap = judge.fp32["val_top1"] - record["ptq"]["val_top1"]
    if config.qad.epochs > 0 and gap <= config.qad.tolerance:
        record["qad_skipped"] = f"PTQ is {100 * gap:.2f} points below FP32, and {100 * config.qad.tolerance:g} are allowed"
        progress.note(f"QAD skipped: {record['qad_skipped']}")
    elif config.qad.epochs > 0:
        started = time.perf_counter()
        for network in (prepared, float_student, float_teacher):
            network.to(target)
        normalisations = ((student.spec.mean, student.spec.std), (teacher.mean, teacher.std))
        qad = Qad(out, prepared, float_student, float_teacher, normalisations, data, config.qad, seed)
        loss = qad.fit(progress)
        record["qad"] = {**finish("qad", prepared, started), "steps": qad.steps, "loss": loss}
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


class _Judge:
    """Measures a graph on the validation split with the runtime that ships it."""

    def __init__(
        self,
        float_student: torch.nn.Module,
        student: ModelSpec,
        float_teacher: torch.nn.Module,
        teacher: ModelSpec,
        data: Dataset,
        device: Device,
        config: QuantizeConfig,
    ) -> None:
        self.spec, self.val, self.device, self.config = student, data.val, device, config.qad
        own = predict_torch(float_student, data.val.images, student.mean, student.std)
        self.student = torch.from_numpy(own)
        self.teacher = torch.from_numpy(predict_torch(float_teacher, data.val.images, teacher.mean, teacher.std))
        self.fp32 = {"val_top1": top1(own, data.val.labels), "val_kl": self._kl(self.student)}

    def __call__(self, graph: Path) -> dict[str, float]:
        logits = predict(graph, self.val.images, self.spec.mean, self.spec.std, self.device)
        return {"val_top1": top1(logits, self.val.labels), "val_kl": self._kl(torch.from_numpy(logits))}

    def _kl(self, logits: torch.Tensor) -> float:
        w, t = self.config.teacher_weight, self.config.temperature
        return float(w * kd_loss(logits, self.teacher, t) + (1 - w) * kd_loss(logits, self.student, t))


def _calibration(data: Dataset, n: int, seed: int) -> NDArray[np.uint8]:
    """`n` training images, not augmented, drawn from the seed: [n, H, W, C]."""
    order = np.random.default_rng([*b"calibration", seed]).permutation(len(data.train))
    return data.train.images[np.sort(order[:n])]
