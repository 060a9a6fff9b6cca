"""The ledger: top-1 of every artifact on the same held-out test images, by the runtime that ships it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import Checkpoint, ModelSpec, OnnxModel
from edgekd.errors import RunError
from edgekd.intervals import wilson
from edgekd.report.fidelity import embedding_similarity, fidelity_rows
from edgekd.stage import digest_file, fingerprint, write_json

if TYPE_CHECKING:
    from edgekd.data import Dataset
    from edgekd.profile import Device
    from edgekd.progress import Progress

CHUNK = 1000  # images between two steps of the progress bar
BATCH = 100  # images a forward pass

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Entry:
    """One artifact to measure: files, the spec that normalises its input, and logits [N, K] of uint8 [N, H, W, C].

    `images` are the test split in the size it takes.
    """

    artifact: str
    files: tuple[Path, ...]
    spec: ModelSpec
    images: Images
    runtime: str
    predict: Callable[[Images], NDArray[np.float32]]


def measure_ledger(
    out: Path,
    *,
    teacher: OnnxModel,
    teacher_spec: ModelSpec,
    student: Checkpoint,
    ptq: OnnxModel | None,
    qad: OnnxModel | None,
    fp32: OnnxModel,
    shipped: OnnxModel,
    data: Dataset,
    taken: Dataset,
    device: Device,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Measure every artifact on all of the test split: `out/ledger.json`, whose rows are returned, and fidelity.json.

    Rows: {artifact, metric: "top1", value, ci95, correct, n, agreement_with_teacher, size_bytes, runtime, path}.
    `value`, `ci95` (Wilson) and `agreement_with_teacher` (same class as teacher.onnx) are in [0, 1]; `size_bytes`
    counts external weights too; `path` is relative to the run directory. `teacher_spec.mean/std` normalise the
    teacher's input, `student.spec.mean/std` every student's. `taken` is `data` in the size of what ships.

    fidelity.json is {rows, cka}: see `fidelity_rows` and `embedding_similarity`.

    Logits already predicted are kept in `out/.ledger`, by the content of the files and the data, so a killed
    measurement goes on, and the same bytes are measured once. Raises RunError when logits are not finite.
    """
    graphs = [("teacher", teacher, teacher_spec, taken)]
    graphs += [
        (name, graph, student.spec, images)
        for name, graph, images in (
            ("student-ptq", ptq, data),
            ("student-qad", qad, data),
            ("onnx-fp32", fp32, taken),
            (shipped.artifact, shipped, taken),
        )
        if graph is not None
    ]
    entries = [_graph_entry(name, graph, spec, images.test.images, device) for name, graph, spec, images in graphs]
    entries.insert(1, _torch_entry(student, data.test.images))

    state = out / ".ledger"
    state.mkdir(parents=True, exist_ok=True)
    labels = data.test.labels
    rows: list[dict[str, Any]] = []
    found: dict[str, NDArray[np.float32]] = {}
    with progress.task("ledger", total=len(entries) * len(labels)) as task:
        for entry in entries:
            found[entry.artifact] = _logits(entry, data.digest, state, task.advance)
            classes, baseline = (found[name].argmax(axis=1) for name in (entry.artifact, "teacher"))
            correct = int((classes == labels).sum())
            rows.append(
                {
                    "artifact": entry.artifact,
                    "metric": "top1",
                    "value": correct / len(labels),
                    "ci95": list(wilson(correct, len(labels))),
                    "correct": correct,
                    "n": len(labels),
                    "agreement_with_teacher": float((classes == baseline).mean()),
                    "size_bytes": sum(file.stat().st_size for file in entry.files),
                    "runtime": entry.runtime,
                    "path": run_path(entry.files[0], out),
                }
            )
    write_json(out / "ledger.json", rows)
    similar = embedding_similarity(teacher_spec, student, data.test.images)
    write_json(out / "fidelity.json", {"rows": fidelity_rows(found, labels, shipped.artifact), "cka": similar})
    shutil.rmtree(state)
    return rows


def graph_files(path: Path) -> tuple[Path, ...]:
    """An ONNX file and the files its external weights lie in."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    names = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location" and tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    return (path, *(path.parent / name for name in sorted(names)))


def run_path(file: Path, out: Path) -> str:
    """`file` as it will be called from the run directory, once the stage that fills `out` is complete."""
    file, out = file.absolute(), out.absolute()
    if file.is_relative_to(out):
        stage = re.sub(r"^\.(.+)-[0-9a-f]+\.partial$", r"\1", out.name)
        return f"{stage}/{file.relative_to(out).as_posix()}"
    return file.relative_to(out.parent).as_posix() if file.is_relative_to(out.parent) else file.name


def _graph_entry(name: str, graph: OnnxModel, spec: ModelSpec, images: Images, device: Device) -> Entry:
    from edgekd.profile import predict

    def logits(part: Images) -> NDArray[np.float32]:
        return predict(graph, part, spec.mean, spec.std, device, batch=BATCH)

    runtime = f"{device.backend} {version('onnxruntime')}"
    return Entry(name, graph_files(Path(graph.path)), spec, images, runtime, logits)


def _torch_entry(student: Checkpoint, images: Images) -> Entry:
    import torch

    from edgekd.data.augment import normalise
    from edgekd.models import load_checkpoint

    model = load_checkpoint(student)

    def logits(part: Images) -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [
                model(normalise(part[i : i + BATCH], student.spec.mean, student.spec.std))
                for i in range(0, len(part), BATCH)
            ]
            rows: NDArray[np.float32] = torch.cat(parts).float().numpy()
            return rows

    runtime = f"torch {torch.__version__.split('+')[0]}"
    return Entry("student-fp32", (student.weights,), student.spec, images, runtime, logits)


def _logits(entry: Entry, digest: str, state: Path, advance: Callable[[float], None]) -> NDArray[np.float32]:
    """float32 [N, K] of all images; from `state` where the same bytes were measured before."""
    images = entry.images
    key = fingerprint(
        {
            "files": [digest_file(file) for file in entry.files],
            "normalisation": [entry.spec.mean, entry.spec.std],
            "runtime": entry.runtime,
            "data": [digest, *images.shape],
        }
    )
    file = state / f"{key[:32]}.npy"
    if file.is_file():
        advance(len(images))
        known: NDArray[np.float32] = np.load(file)
        return known
    parts = []
    for start in range(0, len(images), CHUNK):
        logits = entry.predict(images[start : start + CHUNK])
        if not np.isfinite(logits).all():
            raise RunError(
                f"{entry.artifact} ({entry.files[0].name}) gives logits that are not finite on test images",
                "Train it again with a lower learning rate, or check the data for broken images.",
            )
        parts.append(logits)
        advance(len(logits))
    whole = np.concatenate(parts)
    temporary = file.with_suffix(".tmp.npy")
    np.save(temporary, whole)
    temporary.replace(file)
    return whole
