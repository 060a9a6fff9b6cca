"""Which images a step sees: labelled ones, unlabelled ones beside them, and none of those that a method holds out.

With an unlabelled stream every other row of a batch has a label and every other one has none (-1), so that any part of
a batch holds both. Each stream runs through its own images again and again; an epoch is as many images as both have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.catalog import MethodRow
from edgekd.config import DistillConfig, TrainConfig
from edgekd.data import Dataset
from edgekd.data.augment import epoch_order
from edgekd.data.dataset import Images, Split, channel_statistics
from edgekd.data.loader import Plan
from edgekd.data.readers import open_reader
from edgekd.data.table import read_samples
from edgekd.distill.methods._base import UNLABELLED
from edgekd.distill.schedule import epoch_plan
from edgekd.errors import ConfigError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Streams:
    """Rows of the training split, each in one of the three."""

    labelled: Rows
    unlabelled: Rows
    held: Rows

    @classmethod
    def of(cls, labels: Rows, hold_out: float, seed: int) -> Streams:
        """`hold_out`: the share of every class, one image at least, that is kept from training."""
        held = _share(labels, hold_out, [*b"hold out", seed]) if hold_out else np.zeros(len(labels), bool)
        known = labels != UNLABELLED
        return cls(*(np.flatnonzero(rows) for rows in (known & ~held, ~known, held)))

    def __len__(self) -> int:
        """Images that are trained on."""
        return len(self.labelled) + len(self.unlabelled)

    def steps(self, config: TrainConfig) -> int:
        """Of an epoch."""
        return max(1, len(self) // config.batch_size)

    def plan(self, config: TrainConfig, seed: int, epoch: int, views: int | None) -> Plan:
        """Samples and views of each step of an epoch; `views` is how many of an image are stored."""
        if not (len(self.unlabelled) and len(self.labelled)):
            rows = self.labelled if len(self.labelled) else self.unlabelled
            return [(rows[i], view) for i, view in epoch_plan(config, len(rows), seed, epoch, views)]
        half, steps = min(config.batch_size, len(self)) // 2, self.steps(config)
        drawn = [
            _endless(rows, epoch * steps * half, steps * half, seed + stream)
            for stream, rows in enumerate((self.labelled, self.unlabelled))
        ]
        samples, turns = (np.stack(pair, 1).reshape(steps, 2 * half) for pair in zip(*drawn, strict=True))
        return list(zip(samples, turns if views is None else turns % views, strict=True))


def with_streams(data: Dataset, row: MethodRow, config: DistillConfig, seed: int) -> Dataset:
    """The data with the labels and the images that the config leaves or adds: -1 stands for no label.

    A method without an unlabelled stream gets the labelled images only, one of a pool that and none of the data's own
    for training, not even their mean and deviation. Raises ConfigError where a stream is missing,
    of no use to the method, or of images unlike the data's, DataError for a list of samples that does not fit the data.
    """
    if "pool" in row.needs:
        return _pool(data, row, config)
    train = data.train
    asked = "unlabelled" in row.needs
    if asked and config.labels is None and config.unlabelled is None:
        raise ConfigError(
            f"distill.unlabelled: {row.name} needs a stream of unlabelled images, and there is none",
            "Name images in distill.unlabelled, or the share of the labels to use in distill.labels.",
        )
    if config.unlabelled is not None and not asked:
        raise ConfigError(
            f"distill.unlabelled: {row.name} makes no use of unlabelled images",
            "Set it to null, or distill.method to one that does, such as dho.",
        )
    if config.labels is not None:
        known = _few(train, config.labels, seed, data.classes)
        if not asked:
            return replace(data, train=train[np.flatnonzero(known)])
        train = Split(train.images, np.where(known, train.labels, UNLABELLED), train.ids)
    if config.unlabelled is not None:
        more = _elsewhere(config.unlabelled, data)
        train = Split(
            np.concatenate([train.images, more.images]),
            np.concatenate([train.labels, more.labels]),
            np.concatenate([train.ids, more.ids]),
        )
    if asked and not (train.labels == UNLABELLED).any():
        raise ConfigError(
            f"distill.labels: all images have their labels, and {row.name} needs unlabelled ones", "Lower it."
        )
    return replace(data, train=train)


def _elsewhere(path: str, data: Dataset) -> Split:
    """The images of another data set, without their labels."""
    images = open_reader(path).read(None).train.images
    if images.shape[1:] != data.train.images.shape[1:]:
        raise ConfigError(
            f"distill.unlabelled: its images are {images.shape[1:]} (height, width, channels), those of the data "
            f"{data.train.images.shape[1:]}",
            "Give both the same size and channels.",
        )
    return without_labels(images)


def without_labels(images: Images) -> Split:
    none = np.full(len(images), UNLABELLED)
    return Split(images, none, none)


def _pool(data: Dataset, row: MethodRow, config: DistillConfig) -> Dataset:
    """The data with the images of `distill.unlabelled`, and those alone, to train on."""
    if config.unlabelled is None:
        raise ConfigError(
            f"distill.unlabelled: {row.name} learns from a pool of other images, and there is none",
            "Name images in distill.unlabelled.",
        )
    if config.labels is not None:
        raise ConfigError(f"distill.labels: {row.name} uses none", "Set it to null.")
    train = _elsewhere(config.unlabelled, data)
    if len(train) < config.batch_size:
        raise ConfigError(
            f"distill.unlabelled: a pool of {len(train)} images is smaller than a batch of {config.batch_size}",
            "Add images to it, or lower distill.batch_size.",
        )
    mean, std = channel_statistics(train.images)
    return replace(data, train=train, mean=mean, std=std)


def _few(train: Split, wanted: float | str, seed: int, classes: tuple[str, ...]) -> NDArray[np.bool_]:
    """Of every class a share below 1, or a number of images; or those that a file lists."""
    labels = train.labels
    if isinstance(wanted, str):
        chosen = np.zeros(len(labels), bool)
        chosen[read_samples(Path(wanted), train.ids)] = True
        return chosen
    if wanted < 1:
        return _share(labels, wanted, [*b"labels", seed])
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < wanted or wanted != int(wanted):
        raise ConfigError(
            f"distill.labels: {wanted:g} labels of every class, and {classes[counts.argmin()]!r} has {counts.min()}",
            "Write a share below 1, or a whole number that every class has.",
        )
    return _share(labels, int(wanted), [*b"labels", seed])


def _share(labels: Rows, wanted: float, seed: list[int]) -> NDArray[np.bool_]:
    """True at `wanted` images of every class, a share (one image at least) or a number; a function of `seed`."""
    rng, chosen = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels[labels != UNLABELLED]):
        members = np.flatnonzero(labels == label)
        count = max(1, round(wanted * len(members))) if wanted < 1 else int(wanted)
        chosen[rng.choice(members, count, replace=False)] = True
    return chosen


def _endless(rows: Rows, start: int, count: int, seed: int) -> tuple[Rows, Rows]:
    """`count` of the rows from place `start` on, turn after turn in a new order, and the turn of each."""
    turns, places = np.divmod(np.arange(start, start + count), len(rows))
    orders = {turn: epoch_order(len(rows), seed, turn) for turn in range(turns[0], turns[-1] + 1)}
    return rows[[orders[turn][place] for turn, place in zip(turns.tolist(), places.tolist(), strict=True)]], turns
