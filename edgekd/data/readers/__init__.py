"""One reader a file; `open_reader` picks by what is on disk."""

from __future__ import annotations

from pathlib import Path

from edgekd.data.readers._base import Raw, Reader
from edgekd.data.readers.digits import DigitsReader
from edgekd.data.readers.folder import FolderReader
from edgekd.data.readers.npz import NpzReader
from edgekd.data.readers.parquet import ParquetReader
from edgekd.data.readers.sheets import SheetsReader
from edgekd.errors import DataError

__all__ = ["Raw", "Reader", "open_reader"]

KNOWN = "Name a folder of class folders, a .npz, a .parquet, a sheet archive (.zip), or the word digits."


def open_reader(path: str) -> Reader:
    """The reader for `path`, which nothing but its existence and kind is known of yet. Raises DataError."""
    if path == "digits":
        return DigitsReader()
    location = Path(path)
    if not location.exists():
        raise DataError(f"data: {path} does not exist", KNOWN)
    if location.is_dir():
        return ParquetReader(location) if ParquetReader.files_in(location) else FolderReader(location)
    match location.suffix.lower():
        case ".npz":
            return NpzReader(location)
        case ".parquet":
            return ParquetReader(location)
        case ".zip":
            return SheetsReader(location)
        case _:
            raise DataError(f"data: {path} is a file of a kind that no reader knows", KNOWN)
