"""Sheet archives: a zip of mosaics, `{split}/NNNN.webp` of 10x10 tiles in row-major order, with `{split}_labels.npy`.

`meta.json` may name the classes. Sixty thousand small images become six hundred files, which decode in seconds.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekd.data.dataset import Images, Split
from edgekd.data.readers._base import Raw, allocate, check_labels, make_raw, parallel
from edgekd.data.readers._images import BROKEN, resize
from edgekd.errors import DataError
from edgekd.stage import digest_file

GRID = 10
AGAIN = "Copy or download it again."
LAYOUT = "A sheet archive has train_labels.npy and train/0000.webp, ...; unpack any other zip and name its folder."


@dataclass(frozen=True)
class SheetsReader:
    path: Path

    def digest(self) -> str:
        return digest_file(self.path)

    def read(self, image_size: int | None) -> Raw:
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = set(archive.namelist())
                if "train_labels.npy" not in members:
                    raise DataError(f"data: {self.path} has no train_labels.npy", LAYOUT)
                splits = {
                    split: self._split(archive, split, image_size)
                    for split in ("train", "val", "test")
                    if f"{split}_labels.npy" in members
                }
                meta = json.loads(archive.read("meta.json")) if "meta.json" in members else {}
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, json.JSONDecodeError) as error:
            raise DataError(f"data: {self.path} cannot be read ({error})", AGAIN) from error
        return make_raw(self.path.stem, self.path, splits, tuple(meta.get("classes", ())) or None)

    def _split(self, archive: zipfile.ZipFile, split: str, image_size: int | None) -> Split:
        sheets = sorted(n for n in archive.namelist() if n.startswith(f"{split}/") and n.endswith(".webp"))
        values = self._labels(archive, f"{split}_labels.npy")
        count = len(values)
        if len(sheets) != -(-count // GRID**2) or not sheets:
            raise DataError(f"data: {self.path} has {len(sheets)} sheets in {split}/ for {count} labels", LAYOUT)
        first = self._tiles(archive, sheets[0])
        out = allocate(self.path, len(sheets) * GRID**2, *first.shape[1:])

        def fill(i: int) -> None:
            tiles = self._tiles(archive, sheets[i])
            if tiles.shape != first.shape:
                raise DataError(f"data: {self.path}: {sheets[i]} is of another size than {sheets[0]}", LAYOUT)
            out[i * GRID**2 : (i + 1) * GRID**2] = tiles

        parallel(fill, len(sheets))
        images = resize(out[:count], image_size)
        return Split(images, check_labels(values, f"{self.path}: {split}_labels.npy", count))

    def _tiles(self, archive: zipfile.ZipFile, name: str) -> Images:
        """One sheet as uint8 [100, H, W, C], row by row."""
        content = archive.read(name)  # ZipFile locks its file: reading from threads is safe
        try:
            with Image.open(BytesIO(content)) as sheet:
                pixels = np.asarray(sheet if sheet.mode == "L" else sheet.convert("RGB"))
        except BROKEN as error:
            raise DataError(
                f"data: {self.path}: {name} cannot be read ({error})", "Copy or download it again."
            ) from error
        height, width = pixels.shape[:2]
        if height % GRID or width % GRID:
            raise DataError(f"data: {self.path}: {name} is {width}x{height}, not {GRID}x{GRID} equal tiles", LAYOUT)
        tiles = pixels.reshape(GRID, height // GRID, GRID, width // GRID, -1).swapaxes(1, 2)
        return tiles.reshape(GRID**2, height // GRID, width // GRID, -1)

    def _labels(self, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
        try:
            return np.atleast_1d(np.load(BytesIO(archive.read(name)), allow_pickle=False))
        except (ValueError, EOFError, OSError) as error:
            raise DataError(
                f"data: {self.path}: {name} is not a plain array of numbers",
                "Save it with numpy.save, without objects.",
            ) from error
