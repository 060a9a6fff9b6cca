"""Parquet as the Hugging Face hub lays it out: `train-*.parquet` and `test-*.parquet` in a folder or its `data/`.

Or one file. Column `image` (or `img`) holds encoded files, as bytes or as a struct {bytes, path}; `label` (or
`fine_label`) integers. Class names come from the file's own metadata, where there are any.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.dataset import Labels, Split
from edgekd.data.readers._base import Raw, check_labels, digest_tree, make_raw
from edgekd.data.readers._images import Encoded, decode
from edgekd.errors import DataError
from edgekd.stage import digest_file

PREFIXES = {"train": ("train",), "val": ("val", "dev"), "test": ("test",)}
IMAGE, LABEL = ("image", "img"), ("label", "labels", "fine_label")


@dataclass(frozen=True)
class ParquetReader:
    path: Path

    @staticmethod
    def files_in(folder: Path) -> list[Path]:
        """The parquet files of `folder`, or else of `folder/data`."""
        return sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))

    def digest(self) -> str:
        if self.path.is_file():
            return digest_file(self.path)
        return digest_tree(self.path, [file for files in self._splits().values() for file in files])

    def read(self, image_size: int | None) -> Raw:
        encoded: dict[str, list[Encoded]] = {}
        labels: dict[str, Labels] = {}
        classes: tuple[str, ...] | None = None
        for split, files in self._splits().items():
            parts = [_read(file) for file in files]
            encoded[split] = [image for images, _, _ in parts for image in images]
            labels[split] = np.concatenate([numbers for _, numbers, _ in parts])
            classes = classes or parts[0][2]
        if not all(encoded.values()):
            empty = next(split for split, images in encoded.items() if not images)
            raise DataError(f"data: {self.path} has no rows for {empty}", "Add rows, or remove the empty files.")
        images = decode(self.path, encoded, image_size)
        splits = {split: Split(images[split], labels[split]) for split in images}
        return make_raw(self.path.resolve().stem, self.path, splits, classes)

    def _splits(self) -> dict[str, list[Path]]:
        if self.path.is_file():
            return {"train": [self.path]}
        files = self.files_in(self.path)
        splits = {split: [f for f in files if f.name.startswith(prefix)] for split, prefix in PREFIXES.items()}
        if not splits["train"]:
            raise DataError(
                f"data: {self.path} has parquet files, but none for training",
                "Name them train-*.parquet and test-*.parquet, or name one file.",
            )
        return {split: found for split, found in splits.items() if found}


def _read(file: Path) -> tuple[list[Encoded], Labels, tuple[str, ...] | None]:
    """(images, labels [N], class names or None) of one file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        image, label = _column(schema, IMAGE, file), _column(schema, LABEL, file)
        table = pq.read_table(file, columns=[image, label])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"data: {file} is not a parquet file that can be read ({error})", "Replace it.") from error
    column = table[image].combine_chunks()
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = column.field("bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(
            f"data: {file}: column {image!r} is {column.type}, not encoded images",
            "Store the bytes of PNG or JPEG files, or a struct with a field bytes.",
        )
    for name, values in ((image, column), (label, table[label])):
        if values.null_count:
            raise DataError(f"data: {file}: column {name!r} has {values.null_count} empty rows", "Fill or remove them.")
    images = [Encoded(f"{file}: {image} in row {i}", content) for i, content in enumerate(column.to_pylist())]
    labels = check_labels(table[label].to_numpy(), f"{file}: {label}", len(images))
    return images, labels, _class_names(schema, label)


def _column(schema: Any, names: tuple[str, ...], file: Path) -> str:
    if found := next((name for name in names if name in schema.names), None):
        return found
    raise DataError(f"data: {file} has no column {names[0]!r}, only {', '.join(schema.names)}", "Rename the column.")


def _class_names(schema: Any, label: str) -> tuple[str, ...] | None:
    """The names that `datasets` writes beside the schema for a ClassLabel column."""
    record = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    names = record.get("info", {}).get("features", {}).get(label, {}).get("names")
    return tuple(names) if names else None
