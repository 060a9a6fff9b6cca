"""Datasets: readers for what users have on disk, three honest splits, and augmentation that can be replayed.

data = load_dataset("images/")            # or a .npz, .parquet, sheet archive (.zip), or the word digits
data.train.images                         # uint8 [N, H, W, C]
"""

from __future__ import annotations

from edgekd.data.dataset import Dataset, Split, channel_statistics, split_off
from edgekd.data.readers import open_reader
from edgekd.errors import DataError

__all__ = ["Dataset", "Split", "data_digest", "load_dataset"]

TEST_FRACTION = 0.2  # of the images, when the data come without a test split


def load_dataset(path: str, *, val_fraction: float = 0.05, seed: int = 0, image_size: int | None = None) -> Dataset:
    """Read `path` into memory as uint8 images of one size.

    A given test split is taken as it is; a given val split too. A val split without a test split is the test split, as
    ImageNet is laid out. What is missing is cut off train, stratified by class and from `seed`: `TEST_FRACTION` for
    test, then `val_fraction` of the rest for val. `image_size` (pixels) makes images square; None keeps their own size,
    or the most common one in a folder or parquet file. Raises DataError, naming the file or field.
    """
    if not 0 < val_fraction < 1:
        raise DataError(f"val_fraction: {val_fraction} is not between 0 and 1", "Try 0.05.")
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size: {image_size} is not a number of pixels", "Try 32.")
    reader = open_reader(path)
    raw = reader.read(image_size)
    if len(raw.classes) < 2:
        raise DataError(f"{path}: the one class {raw.classes[0]}, and nothing to tell it from", "Add another class.")
    train, val, test = raw.train, raw.val, raw.test
    if test is None:
        val, test = None, val
    if test is None:
        train, test = split_off(train, TEST_FRACTION, seed, "test", raw.classes)
    if val is None:
        train, val = split_off(train, val_fraction, seed, "val", raw.classes)
    mean, std = channel_statistics(train.images)
    flips = train.images.shape[-1] == 3
    return Dataset(raw.name, raw.classes, train, val, test, mean, std, flips, reader.digest())


def data_digest(path: str) -> str:
    """`load_dataset(path).digest` without decoding an image. Raises DataError when `path` cannot be a dataset."""
    return open_reader(path).digest()
