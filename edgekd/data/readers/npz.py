"""`.npz` archives: `x_train, y_train, x_test, y_test` (Keras), `train_images, train_labels, ...` (MedMNIST).

Or one pair, `images, labels`. Images are uint8 or floats in [0, 1], laid out NHWC, NCHW or NHW; `classes` may
hold the class names.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.dataset import Images, Split
from edgekd.data.readers._base import Raw, check_labels, make_raw
from edgekd.data.readers._images import resize
from edgekd.errors import DataError
from edgekd.stage import digest_file

IMAGES = ("x_{}", "X_{}", "{}_x", "{}_images")
LABELS = ("y_{}", "Y_{}", "{}_y", "{}_labels")
ALONE = (("images", "x", "X"), ("labels", "y", "Y"))
KEYS = "Store x_train, y_train, x_test and y_test, or images and labels."


@dataclass(frozen=True)
class NpzReader:
    path: Path

    def digest(self) -> str:
        return digest_file(self.path)

    def read(self, image_size: int | None) -> Raw:
        arrays = self._arrays()
        pairs = {
            split: (_first(arrays, IMAGES, split), _first(arrays, LABELS, split)) for split in ("train", "val", "test")
        }
        pairs = {split: pair for split, pair in pairs.items() if any(pair)}
        if not pairs and all(alone := (_first(arrays, ALONE[0], ""), _first(arrays, ALONE[1], ""))):
            pairs = {"train": alone}
        splits = {}
        for split, (x, y) in pairs.items():
            if x is None or y is None:
                raise DataError(f"data: {self.path} has {x or y} but no {split} {'images' if y else 'labels'}", KEYS)
            images = resize(as_images(arrays[x], f"{self.path}: {x}"), image_size)
            splits[split] = Split(images, check_labels(arrays[y], f"{self.path}: {y}", len(images)))
        if "train" not in splits:
            raise DataError(
                f"data: {self.path} has the arrays {', '.join(arrays) or '(none)'}, none for training", KEYS
            )
        classes = tuple(str(name) for name in arrays["classes"]) if "classes" in arrays else None
        return make_raw(self.path.stem, self.path, splits, classes)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (
            OSError,
            ValueError,
            EOFError,
            KeyError,
            AttributeError,
            TypeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            fault = (
                "holds pickled objects, which may run code" if "allow_pickle" in str(error) else "is not a .npz file"
            )
            raise DataError(
                f"data: {self.path} {fault}",
                "Store plain number arrays with numpy.savez_compressed.",
            ) from error


def as_images(array: NDArray[Any], field: str) -> Images:
    """NHWC, NCHW or NHW of uint8, other integers in 0..255, or floats in [0, 1] -> uint8 [N, H, W, C].

    Raises DataError naming `field`.
    """
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape[1:]:
        raise DataError(
            f"data: {field} has shape {array.shape}, not that of grey or RGB images",
            "Store [N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3.",
        )
    if array.dtype == np.uint8 or not array.size:
        return np.ascontiguousarray(array, np.uint8)
    low, high = array.min(), array.max()  # a NaN spreads to both
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(low) and np.isfinite(high)):
            bad = int(np.flatnonzero(~np.isfinite(array).all(axis=(1, 2, 3)))[0])
            raise DataError(
                f"data: {field} has NaN or infinity, first in image {bad}", "Remove or repair these images."
            )
        if 0 <= low and high <= 1:
            return np.ascontiguousarray(np.rint(array * 255), np.uint8)
    elif np.issubdtype(array.dtype, np.integer) and 0 <= low and high <= 255:
        return np.ascontiguousarray(array, np.uint8)
    raise DataError(
        f"data: {field} is {array.dtype} with values from {low} to {high}", "Store uint8, or floats between 0 and 1."
    )


def _first(arrays: Mapping[str, object], patterns: tuple[str, ...], split: str) -> str | None:
    return next((key for pattern in patterns if (key := pattern.format(split)) in arrays), None)
