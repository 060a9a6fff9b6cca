"""A directory as a zip file whose bytes hang on its content alone."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can state


def write_zip(directory: Path, path: Path) -> None:
    """Every file below `directory`, by name, stored without compression, to the zip file `path`."""
    files = sorted(file for file in directory.rglob("*") if file.is_file())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(directory).as_posix(), EPOCH)
            entry.create_system = 3  # Unix, whatever this system is: the mode counts
            entry.external_attr = (stat.S_IFREG | stat.S_IMODE(file.stat().st_mode)) << 16
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
