"""Tables of aspects: what an ONNX model says of every training image, answers from 0 to 1, for method `makd`.

A model of several labels, or of classes, gives an answer for each of its outputs: their sigmoid, or their softmax. A
zero-shot image encoder gives an embedding v, and the answers are those to the questions of `texts`, whose two sides a
text encoder has embedded: sigmoid(scale (cos(v, yes) - cos(v, no))), the softmax of the pair. scale is 100 in CLIP.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.data.readers import open_reader
from edgekd.data.table import write_table
from edgekd.errors import ConfigError, DataError
from edgekd.models.onnx import OnnxNetwork
from edgekd.progress import Progress
from edgekd.tasks.classification import predict_torch

FORMAT = "Store yes and no as floats [Q, D], and names [Q] if you like, with numpy.savez."
CHUNK = 1000


@dataclass(frozen=True)
class Questions:
    """`yes` and `no` [Q, D] of length 1."""

    names: tuple[str, ...]
    yes: NDArray[np.float32]
    no: NDArray[np.float32]

    @classmethod
    def read(cls, path: Path) -> Questions:
        """From an .npz. Raises DataError."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays: dict[str, Any] = {key: archive[key] for key in archive.files}
        except (OSError, ValueError, EOFError, AttributeError) as error:
            raise DataError(f"texts {path} cannot be read: {error}", FORMAT) from error
        yes, no = arrays.get("yes"), arrays.get("no")
        if yes is None or no is None or yes.ndim != 2 or yes.shape != no.shape:
            raise DataError(f"texts {path} holds no two arrays yes and no of one shape [Q, D]", FORMAT)
        names = arrays.get("names", np.array([f"aspect.{i}" for i in range(len(yes))]))
        if names.shape != (len(yes),):
            raise DataError(f"texts {path}: {names.size} names for {len(yes)} questions", FORMAT)
        return cls(tuple(map(str, names)), _unit(yes), _unit(no))

    def answers(self, embeddings: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
        """[N, Q] of embeddings [N, D]."""
        if embeddings.shape[1] != self.yes.shape[1]:
            raise DataError(
                f"texts: embeddings of {self.yes.shape[1]} values, and the images' have {embeddings.shape[1]}",
                "Use the text and the image encoder of one model.",
            )
        return _sigmoid(scale * (_unit(embeddings) @ (self.yes - self.no).T))


def make_aspects(
    data: str,
    model: Path,
    out: Path,
    progress: Progress,
    *,
    texts: Path | None = None,
    softmax: bool = False,
    scale: float = 100.0,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> tuple[int, int]:
    """Write the table `out` for all training images of `data`; returns its samples and aspects.

    The model takes images [B, C, H, W] normalised by `mean` and `std` (null: 0 and 1, of pixels from 0 to 1), at
    `image_size` (null: the data's). Raises DataError or ModelError.
    """
    questions = None if texts is None else Questions.read(texts)
    train = open_reader(data).read(image_size).train
    _, height, width, channels = train.images.shape
    network = OnnxNetwork(model, (channels, height, width))
    norm = mean or (0.0,) * channels, std or (1.0,) * channels
    parts = []
    with progress.task("aspects", len(train)) as task:
        for i in range(0, len(train), CHUNK):
            images = train.images[i : i + CHUNK]
            parts.append(predict_torch(network, images, *norm))
            task.advance(len(images))
    outputs = np.concatenate(parts)
    if questions is not None:
        names, answers = questions.names, questions.answers(outputs, scale)
    else:
        names = tuple(f"aspect.{i}" for i in range(outputs.shape[1]))
        answers = torch.from_numpy(outputs).softmax(1).numpy() if softmax else _sigmoid(outputs)
    write_table(out, train.ids, dict(zip(names, answers.T, strict=True)))
    return answers.shape[0], answers.shape[1]


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Of `0.5,0.5,0.5`. Raises ConfigError."""
    try:
        return None if text is None else tuple(map(float, text.split(",")))
    except ValueError:
        raise ConfigError(f"{option}: {text!r} are no numbers", "Write one a channel: 0.5,0.5,0.5.") from None


def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype("f4")
    return unit


def _sigmoid(x: NDArray[Any]) -> NDArray[np.float32]:
    answers: NDArray[np.float32] = torch.from_numpy(x).sigmoid().numpy()
    return answers
