"""What a dataset is in memory: uint8 images in three splits, and how a split is cut off another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DataError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """`images` uint8 [N, H, W, C] with C 1 or 3, and their `labels` int64 [N].

    `rows` int64 [N] are their numbers in the split that was read, before any part of it was taken; None: 0, 1, ...
    """

    images: Images
    labels: Labels
    rows: Labels | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: NDArray[np.int64] | slice) -> Split:
        return Split(self.images[index], self.labels[index], self.ids[index])

    @property
    def ids(self) -> Labels:
        """What a table of samples calls the images, int64 [N]."""
        return np.arange(len(self.labels)) if self.rows is None else self.rows


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train learns, val chooses, test reports. `mean` and `std` per channel are of images / 255 over train.

    `flips` says whether a mirrored image keeps its label (not so for grey images, which are mostly digits and letters).
    `digest` is a SHA-256 of the content on disk, never of its path.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flips: bool
    digest: str

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as a model sees one image."""
        _, height, width, channels = self.train.images.shape
        return channels, height, width


def split_off(split: Split, fraction: float, seed: int, purpose: str, classes: tuple[str, ...]) -> tuple[Split, Split]:
    """(rest, held): a seeded, stratified `fraction` of every class, at least one image, is held out for `purpose`.

    Both keep the original order. Raises DataError when a class has fewer than two images.
    """
    rng = np.random.default_rng([*purpose.encode(), seed])  # val and test of one seed are drawn independently
    held = np.zeros(len(split), dtype=bool)
    for label, name in enumerate(classes):
        members = np.flatnonzero(split.labels == label)
        if len(members) < 2:
            raise DataError(
                f"data: class {name!r} has {len(members)} image left, and a {purpose} split needs one more",
                f"Add images to it, leave the class out, or provide a {purpose} split of your own.",
            )
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held[rng.choice(members, count, replace=False)] = True
    return split[np.flatnonzero(~held)], split[np.flatnonzero(held)]


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) per channel of uint8 images [N, H, W, C] / 255; exact sums in integers.

    A constant channel has std 1, so that it normalises to 0. Raises DataError when all channels are constant.
    """
    # Summing over N first keeps the inner loop long: a reduction to C directly is ten times slower.
    chunks = [images[i : i + 4096] for i in range(0, len(images), 4096)]
    total = sum(chunk.sum(axis=0, dtype=np.int64) for chunk in chunks)
    square = sum(np.square(chunk, dtype=np.uint16).sum(axis=0, dtype=np.int64) for chunk in chunks)
    pixels = images.size // images.shape[-1]
    mean = np.sum(total, axis=(0, 1)) / pixels
    variance = np.maximum(np.sum(square, axis=(0, 1)) / pixels - mean**2, 0)
    if not variance.any():
        raise DataError("data: all training images are of one and the same value", "Check how the images were written.")
    std = np.where(variance > 0, np.sqrt(variance) / 255, 1.0)
    return tuple((mean / 255).tolist()), tuple(std.tolist())
