"""Golden images and outputs, and how far another run of the same model may be from them: measured, not chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import OnnxModel
from edgekd.data.dataset import Split
from edgekd.errors import ModelError
from edgekd.profile.backends.ort_cpu import OrtCpuSession
from edgekd.profile.inference import filled, prepare
from edgekd.profile.machine import usable_cores

IMAGES = 16
MARGIN = 4.0  # for another processor or version of the runtime, on top of what was seen here

Outputs = dict[str, NDArray[Any]]


def choose(split: Split, count: int = IMAGES) -> NDArray[np.int64]:
    """The rows of `count` images: the first of every class, then the second of every class, and so on."""
    seen: dict[int, int] = {}
    turns = []
    for label in split.labels.tolist():
        turns.append(seen.get(label, 0))
        seen[label] = turns[-1] + 1
    order = np.lexsort((np.arange(len(turns)), split.labels, np.asarray(turns)))
    return np.sort(order[:count])


def measure(
    model: OnnxModel, pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], optimised: bool
) -> tuple[Outputs, dict[str, Any]]:
    """The outputs of `pixels` [N, H, W, C] by ONNX Runtime on one thread, and their record by output name.

    A record is {atol, runs, largest}. `runs` are the largest differences to other ways to compute the same: the graph
    operator by operator, one image a call, all cores, and torch (the export's parity, over more images). `atol` is
    `MARGIN` times the largest of them, in the unit of the output. Classes are left out: rounding turns two that are as
    likely, and their scores are there. A graph for another runtime is not `optimised`, since
    ONNX Runtime's fused int8 kernels are not what runs there.
    """
    base = infer(model.path, pixels, mean, std, optimised=optimised)
    others = {"one image a call": infer(model.path, pixels, mean, std, optimised=optimised, batch=1)}
    if len(usable_cores()) > 1:
        others["all cores"] = infer(model.path, pixels, mean, std, optimised=optimised, threads=len(usable_cores()))
    if optimised:
        others["operator by operator"] = infer(model.path, pixels, mean, std, optimised=False)
    base, record = {name: array for name, array in base.items() if array.dtype.kind == "f"}, {}
    for name, expected in base.items():
        if not np.isfinite(expected).all():
            raise ModelError(f"{Path(model.path).name} gives a {name} that is not finite", "Distill the student again.")
        runs = {kind: float(np.abs(found[name].astype(np.float64) - expected).max()) for kind, found in others.items()}
        if name == next(iter(base)) and "max_abs_error" in model.parity:
            runs["torch"] = float(model.parity["max_abs_error"])
        record[name] = {
            "atol": MARGIN * max(runs.values()),
            "runs": runs,
            "largest": float(np.abs(expected).max()),
        }
    return base, record


def infer(
    path: str,
    pixels: NDArray[np.uint8],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    optimised: bool,
    batch: int | None = None,
    threads: int = 1,
) -> Outputs:
    """Every output by name for pixels [N, H, W, C]: `batch` images a call, all at once without it.

    A graph of one batch size gets that many, the last ones filled up. Raises BackendError.
    """
    parts = []
    with OrtCpuSession(path, threads, optimised) as session:
        ((name, (dtype, shape)),) = session.inputs.items()
        images = prepare(pixels, mean, std, dtype)
        size = shape[0] or batch or len(images)
        for start in range(0, len(images), size):
            part = images[start : start + size]
            found = session.infer({name: filled(part, shape[0])})
            parts.append({key: array[: len(part)] for key, array in found.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
