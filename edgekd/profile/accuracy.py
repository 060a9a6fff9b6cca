"""Top-1 of the session that was timed, on test images: speed and accuracy of one and the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import Checkpoint, OnnxModel
from edgekd.describe.onnx import preprocessing
from edgekd.errors import BackendError, ModelError
from edgekd.intervals import wilson
from edgekd.profile.hosts import Worker
from edgekd.profile.inference import filled, prepare

PIXELS = "uint8"  # the input of a graph that normalises by itself, [N, H, W, C]


@dataclass(frozen=True)
class LabelledImages:
    """uint8 [N, H, W, C] and int64 [N], and the statistics for a graph that does not say its own."""

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def check(self, worker: Worker, id: str, model: OnnxModel) -> tuple[str, str]:
        """Name and type of the input of the session under `id`. Raises ModelError where the images do not fit it."""
        inputs = worker.inputs(id)
        if len(inputs) != 1:
            raise ModelError(f"{model.artifact} has {len(inputs)} inputs: {', '.join(inputs)}", "Leave out --data.")
        ((name, (dtype, shape)),) = inputs.items()
        expected = shape[1:] if dtype == PIXELS else (*shape[2:], shape[1])
        if expected != self.images.shape[1:]:
            raise ModelError(
                f"{model.artifact} takes images of {expected} (height, width, channels), {self.name} has "
                f"{self.images.shape[1:]}",
                "Name data of that size.",
            )
        return name, dtype

    def measure(self, worker: Worker, id: str, model: OnnxModel, batch: int) -> dict[str, Any]:
        """{metric, value, ci95, correct, n, data, normalised_with} of the session under `id`, asked `batch` at a time.

        `value` and `ci95` (Wilson) are in [0, 1]. A last part that is too small is filled up, for graphs of one batch
        size. Raises BackendError where the runtime gives no outputs, or some that are not finite.
        """
        name, dtype = self.check(worker, id, model)
        mean, std, whose = self._statistics(model)
        correct = 0
        for start in range(0, len(self.images), batch):
            part = self.images[start : start + batch]
            feeds = prepare(filled(part, batch), mean, std, np.dtype(dtype)).astype(dtype, copy=False)
            outputs = worker.infer(id, {name: feeds})
            logits = next(iter(outputs.values()))[: len(part)]
            if not np.isfinite(logits).all():
                raise BackendError(f"{model.artifact} gives logits that are not finite", "Export it again.")
            correct += int((logits.argmax(axis=1) == self.labels[start : start + batch]).sum())
        return {
            "metric": "top1",
            "value": correct / len(self.labels),
            "ci95": list(wilson(correct, len(self.labels))),
            "correct": correct,
            "n": len(self.labels),
            "data": self.name,
            "normalised_with": None if dtype == PIXELS else {"mean": list(mean), "std": list(std), "of": whose},
        }

    def _statistics(self, model: OnnxModel) -> tuple[tuple[float, ...], tuple[float, ...], str]:
        """Mean and std of images / 255, and whose they are."""
        path = Path(model.path)
        if (path / "checkpoint.json").is_file():
            spec = Checkpoint.load(path).spec
            return spec.mean, spec.std, "the checkpoint"
        if path.suffix == ".onnx":
            own = preprocessing(path)
            if own is not None:
                return tuple(own.get("mean", ())), tuple(own.get("std", ())), "the graph"  # none where it takes pixels
        return self.mean, self.std, "the data"


def load_labelled_images(data: str, image_size: int | None = None) -> LabelledImages:
    """The test split of `data`, which chose nothing. Raises DataError."""
    from edgekd.data import load_dataset

    loaded = load_dataset(data, image_size=image_size)
    return LabelledImages(loaded.name, loaded.test.images, loaded.test.labels, loaded.mean, loaded.std)
