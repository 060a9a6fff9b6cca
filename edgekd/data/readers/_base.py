"""What every reader returns, and the checks they share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekd.data.dataset import Images, Labels, Split
from edgekd.errors import DataError
from edgekd.stage import digest_file

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Raw:
    """A dataset as found: the splits that are there, each checked."""

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split | None


class Reader(Protocol):
    def digest(self) -> str:
        """SHA-256 of the content, without decoding it."""

    def read(self, image_size: int | None) -> Raw:
        """All images, square of `image_size` pixels if given. Raises DataError."""


def parallel(fn: Callable[[int], T], count: int) -> list[T]:
    """[fn(0), ..., fn(count - 1)] by threads, for work that releases the GIL: decoding, resizing, hashing."""
    block = 32  # a future for every image would cost as much as decoding a small one
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(lambda i: [fn(j) for j in range(i, min(i + block, count))], range(0, count, block))
        return [result for part in parts for result in part]


def digest_tree(root: Path, files: list[Path]) -> str:
    """SHA-256 over the names relative to `root`, in order, and the bytes of `files`."""
    names = sorted(file.relative_to(root).as_posix() for file in files)
    digests = parallel(lambda i: digest_file(root / names[i]), len(names))
    sha = hashlib.sha256()
    for name, digest in zip(names, digests, strict=True):
        sha.update(f"{digest} {name}\0".encode())
    return sha.hexdigest()


def allocate(where: object, count: int, height: int, width: int, channels: int) -> Images:
    """Room for `count` images; DataError instead of the system's out-of-memory kill when they cannot fit."""
    need, have = count * height * width * channels, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > have / 2:
        raise DataError(
            f"data: {where} holds {count} images of {width}x{height} pixels, {need / 2**30:.0f} GiB in memory",
            "Set image_size to a smaller number of pixels, such as 64.",
        )
    return np.empty((count, height, width, channels), np.uint8)


def check_labels(values: NDArray[Any], field: str, count: int) -> Labels:
    """`values` as int64 [count]: one whole number from 0 an image, else DataError naming `field`."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(
            f"data: {field} has shape {values.shape}, not one label an image", "One-hot labels: store argmax(axis=1)."
        )
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"data: {field} holds {values.dtype}, not integers", "Store class numbers from 0 as int64.")
    if len(values) != count:
        raise DataError(f"data: {field} has {len(values)} labels for {count} images", "Store one label an image.")
    labels = values.astype(np.int64)
    if count and labels.min() < 0:
        raise DataError(f"data: {field} has the label {labels.min()}", "Number the classes from 0.")
    return labels


def make_raw(name: str, where: object, splits: Mapping[str, Split], classes: tuple[str, ...] | None = None) -> Raw:
    """Check what holds between splits and classes; without names, classes are called by their numbers.

    Raises DataError: no or empty train, one class only, a label out of range, a class without training images, or
    images of different shapes.
    """
    empty = next((split for split in splits if not len(splits[split])), None if "train" in splits else "train")
    if empty:
        raise DataError(f"data: {where} has no {empty} images", "Add images, or remove what names an empty split.")
    train = splits["train"]
    if classes is None:
        top = int(train.labels.max())
        if top >= len(train):  # so there are gaps: say it before a stray number makes a billion classes
            raise DataError(
                f"data: {where} has the label {top} in {len(train)} images", "Number the classes without gaps."
            )
        classes = tuple(str(i) for i in range(top + 1))
    if len(classes) < 2:
        raise DataError(f"data: {where} has the one class {classes[0]!r}", "A classifier needs two or more classes.")
    for split, part in splits.items():
        top = int(part.labels.max())
        if top >= len(classes):
            raise DataError(
                f"data: {where}: the {split} labels go up to {top}, but the classes are 0 to {len(classes) - 1}",
                "Give train and test the same classes.",
            )
        if part.images.shape[1:] != train.images.shape[1:]:
            shape, other = part.images.shape[1:], train.images.shape[1:]
            raise DataError(
                f"data: {where}: {split} images are {shape} (height, width, channels) and train images {other}",
                "Give both the same channels, and set image_size if their sizes differ.",
            )
    missing = np.flatnonzero(np.bincount(train.labels, minlength=len(classes)) == 0)
    if len(missing):
        raise DataError(
            f"data: {where}: no training image of class {classes[missing[0]]!r}",
            "Number the classes without gaps, or add images of it.",
        )
    return Raw(name, classes, train, splits.get("val"), splits.get("test"))
