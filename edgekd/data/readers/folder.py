"""Image folders: `train/CLASS/*` and `test/CLASS/*` (and `val/CLASS/*`), or `CLASS/*` alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.data.dataset import Split
from edgekd.data.readers._base import Raw, digest_tree, make_raw
from edgekd.data.readers._images import Encoded, decode
from edgekd.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
LAYOUT = "Lay it out as train/CLASS/*.png and test/CLASS/*.png, or as CLASS/*.png."


@dataclass(frozen=True)
class FolderReader:
    """Images of any size, grey or colour, at any depth under their class folder; other files are passed over."""

    path: Path

    def digest(self) -> str:
        return digest_tree(self.path, [f for tree in self._trees().values() for files in tree.values() for f in files])

    def read(self, image_size: int | None) -> Raw:
        trees = self._trees()
        classes = tuple(trees["train"])
        for split, tree in trees.items():
            if odd := sorted(set(classes) ^ set(tree)):
                holder, other = ("train", split) if odd[0] in classes else (split, "train")
                raise DataError(
                    f"data: {self.path}: the class folder {odd[0]!r} is in {holder}/ but not in {other}/",
                    "Give every split the same class folders.",
                )
        names = {
            split: [Encoded(str(file), file) for name in classes for file in tree[name]]
            for split, tree in trees.items()
        }
        images = decode(self.path, names, image_size)
        splits = {
            split: Split(images[split], np.repeat(np.arange(len(classes)), [len(tree[name]) for name in classes]))
            for split, tree in trees.items()
        }
        return make_raw(self.path.resolve().name, self.path, splits, classes)

    def _trees(self) -> dict[str, dict[str, list[Path]]]:
        """split -> class -> sorted image files. Raises DataError for a layout it is not, or an empty class."""
        folders = {
            split: self.path / name for split, names in SPLITS.items() for name in names if (self.path / name).is_dir()
        }
        # A folder of classes may have one that is called train.
        if "train" not in folders or (len(folders) == 1 and not _subfolders(folders["train"])):
            if "test" in folders and _subfolders(folders["test"]):
                raise DataError(f"data: {self.path} has test/ but no train/", LAYOUT)
            folders = {"train": self.path}
        return {split: _class_files(folder) for split, folder in folders.items()}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _class_files(folder: Path) -> dict[str, list[Path]]:
    if not (subfolders := _subfolders(folder)):
        raise DataError(f"data: {folder} has no class folders", LAYOUT)
    found = {entry.name: _images_under(entry) for entry in subfolders}
    if empty := next((entry for entry in subfolders if not found[entry.name]), None):
        raise DataError(
            f"data: the class folder {empty} has no image", f"Add images ({' '.join(sorted(SUFFIXES))}) or remove it."
        )
    return found


def _images_under(folder: Path) -> list[Path]:
    return sorted(
        Path(root, name)
        for root, _, names in os.walk(folder, followlinks=True)
        for name in names
        if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
    )
