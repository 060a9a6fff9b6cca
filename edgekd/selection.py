"""Which unlabelled images to label next: a round of active learning is select, label, distill with those labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.artifacts import Checkpoint
from edgekd.bundle.goldens import infer
from edgekd.catalog import STRATEGIES, find
from edgekd.compare import image_shape
from edgekd.data import Dataset, load_dataset
from edgekd.data.strategies import Pool
from edgekd.data.table import read_samples, write_samples
from edgekd.describe.onnx import preprocessing
from edgekd.distill.methods._heads import Reheaded
from edgekd.errors import ConfigError, ModelError
from edgekd.models import load_checkpoint
from edgekd.models.taps import Tapped
from edgekd.pipeline import run_config
from edgekd.progress import NullProgress, Progress
from edgekd.quantize import convert
from edgekd.tasks.classification import predict_torch

CHUNK = 1000  # images between two words of progress


def select(
    source: Path,
    out: Path,
    *,
    count: int,
    strategy: str = "pcoreset",
    labelled: Path | None = None,
    data: str | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Choose `count` training images of `data` that are not in the list `labelled`, and say which.

    `source` is a checkpoint, an ONNX file, or a run, whose data and seed are taken where none are given. `out` gets the
    samples of `labelled` and then the chosen ones, in order of choice: what `distill.labels` and the next `labelled`
    take. `seed` is of the splits and of every draw; for a checkpoint it has to be the one it was distilled with.
    Raises ConfigError, DataError or ModelError.
    """
    row = find(STRATEGIES, "--strategy", strategy)
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: its directory does not exist", "Make it, or name another file.")
    model = _Model.open(source)
    if row.embeddings and not model.is_float:
        raise ModelError(
            f"--strategy {strategy} reads embeddings, and {source} gives logits alone",
            "Name the float checkpoint or the run that it comes from, or another strategy, such as pcoreset.",
        )
    splits = model.splits if seed is None else {**model.splits, "seed": seed}
    loaded = _load(data or model.data, model, splits)
    train = loaded.train
    known = np.zeros(0, np.int64) if labelled is None else read_samples(labelled, train.ids)
    left = np.setdiff1d(np.arange(len(train)), known)
    if not 0 < count <= len(left):
        raise ConfigError(
            f"--count: {count} of a pool of {len(left)} images, the {len(train)} less the {len(known)} labelled ones",
            "Name a number from 1 to that.",
        )
    logits, embeddings = model.outputs(loaded, row.embeddings, progress or NullProgress())
    if logits.shape[1] != loaded.num_classes:
        raise ModelError(
            f"{source} has {logits.shape[1]} classes, the data have {loaded.num_classes}",
            "Name a model of these classes.",
        )
    p = torch.from_numpy(logits).softmax(1).numpy()
    pool = Pool(p[left], p[known])
    if embeddings is not None:
        pool = Pool(p[left], p[known], embeddings[left], embeddings[known])
    rng = np.random.default_rng([*b"select", splits.get("seed", 0), len(known)])
    chosen = train.ids[left[row.load()(pool, count, rng)]]
    write_samples(out, np.concatenate([train.ids[known], chosen]))
    return {
        "path": str(out),
        "model": str(source),
        "strategy": strategy,
        "labelled": len(known),
        "pool": len(left),
        "selected": chosen.tolist(),
    }


@dataclass(frozen=True)
class _Model:
    """What ships: a checkpoint in torch, or a graph in ONNX Runtime; `data` and `splits` are known of a run."""

    path: Path
    checkpoint: Checkpoint | None
    data: str | None = None
    splits: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, source: Path) -> _Model:
        if (source / "run.json").is_file():
            config = run_config(source)
            splits = {key: getattr(config, key) for key in ("seed", "val_fraction", "image_size")}
            return cls(source, Checkpoint.load(source / "distill"), config.data, splits)
        return cls(source, Checkpoint.load(source) if source.is_dir() else None)

    @property
    def is_float(self) -> bool:
        return self.checkpoint is not None and self.checkpoint.scheme is None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images."""
        return image_shape(self.path if self.checkpoint is None else Path(self.checkpoint.path))

    def outputs(
        self, data: Dataset, embeddings: bool, progress: Progress
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Logits [N, K] of the training images, and their embeddings [N, D] where asked for."""
        net: nn.Module | None = None
        mean, std = data.mean, data.std
        if self.checkpoint is not None:
            spec = self.checkpoint.spec
            mean, std = spec.mean, spec.std
            net = load_checkpoint(self.checkpoint) if self.is_float else convert(self.checkpoint)
            net = WithEmbeddings(net, spec.input_shape) if embeddings else net
        else:
            mean, std = _statistics(self.path) or (mean, std)
        parts = []
        with progress.task("images", len(data.train)) as task:
            for i in range(0, len(data.train), CHUNK):
                images, threads = data.train.images[i : i + CHUNK], torch.get_num_threads()
                if net is None:
                    found = infer(str(self.path), images, mean, std, optimised=True, batch=100, threads=threads)
                    parts.append(next(iter(found.values())).astype(np.float32, copy=False))
                else:
                    parts.append(predict_torch(net, images, mean, std))
                task.advance(len(images))
        rows = np.concatenate(parts)
        if not embeddings:
            return rows, None
        assert self.checkpoint is not None
        classes = self.checkpoint.spec.num_classes
        return rows[:, :classes], rows[:, classes:]


class WithEmbeddings(nn.Module):
    """images [B, C, H, W] -> logits and embeddings side by side [B, K + D]. Raises ModelError without a linear head."""

    def __init__(self, model: nn.Module, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if isinstance(model, Reheaded):
            head = model.head
        else:
            head = Tapped(model, input_shape, embeddings=True).side.classifier
        self.model = model
        self._kept: list[Tensor] = []
        head.register_forward_pre_hook(lambda _module, inputs: self._kept.append(inputs[0]))

    def forward(self, images: Tensor) -> Tensor:
        self._kept.clear()
        logits = self.model(images)
        return torch.cat([logits, self._kept[-1]], 1)


def _load(data: str | None, model: _Model, splits: dict[str, Any]) -> Dataset:
    """The data, in the size that the model takes."""
    if data is None:
        raise ConfigError(f"--data: {model.path} is no run and does not say what it learned", "Name the data.")
    height, width, _ = model.shape
    loaded = load_dataset(data, **{"image_size": height if height == width else None, **splits})
    if loaded.train.images.shape[1:] != model.shape:
        raise ModelError(
            f"{model.path} takes images of {model.shape} (height, width, channels), those of {data} are "
            f"{loaded.train.images.shape[1:]}",
            "Name the data it was distilled on.",
        )
    return loaded


def _statistics(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std that a graph of edgekd's wants its images normalised by; None where it does not say."""
    record = preprocessing(path) or {}
    return (tuple(record["mean"]), tuple(record["std"])) if "mean" in record else None
