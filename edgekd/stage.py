"""A stage is a function that fills a directory: fingerprint, cache, resume, atomic completion.

A stage writes only under `RUN/.<stage>-<fp>.partial/`. Success writes `stage.json` there and renames the directory to
`RUN/<stage>/`, so an artifact is whole or absent; a killed run goes on from what it left in the partial directory.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import DiskFullError, RunDirectoryError


def fingerprint(record: Any) -> str:
    """SHA-256 of the canonical JSON of `record`."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:  # Python 3.10 has no hashlib.file_digest
    sha = hashlib.sha256()
    while chunk := file.read(1 << 20):
        sha.update(chunk)
    return sha.hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` in one step: a reader, or the run after a crash, sees the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, record: Any) -> None:
    write_atomic(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


@dataclass(frozen=True)
class StageResult:
    name: str
    path: Path
    seconds: float
    cached: bool
    fingerprint: str


class RunDirectory:
    """`RUN/`: the stages' directories, a lock, and the names that belong to edgekd there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[RunDirectory]:
        """Own the directory until the block ends; the lock dies with the process, so a killed run leaves none.

        Raises RunDirectoryError when it is a file, holds something else, or another run owns it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(f"--out {self.path} is a file", "Name a directory that is empty or new.")
        ours = self.path / ".edgekd"
        if self.path.is_dir() and any(self.path.iterdir()) and not ours.exists():
            raise RunDirectoryError(
                f"--out {self.path} is not empty and edgekd did not make it", "Name a directory that is empty or new."
            )
        with guard_disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            with ours.open("a") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise RunDirectoryError(
                        f"--out {self.path} is in use by another edgekd run",
                        "Wait for it, stop it, or name another directory.",
                    ) from None
                yield self

    def cached(self, name: str, fp: str) -> bool:
        """Whether stage `name` is complete for exactly these inputs."""
        record = self.record(name)
        return record is not None and record["fingerprint"] == fp

    def record(self, name: str) -> dict[str, Any] | None:
        """`stage.json` of a complete stage, else None."""
        file = self.path / name / "stage.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def partial(self, name: str, fp: str) -> Path:
        return self.path / f".{name}-{fp[:16]}.partial"

    def run(self, name: str, inputs: dict[str, Any], fn: Callable[[Path], None], *, force: bool = False) -> StageResult:
        """Fill `RUN/name` with `fn(partial_directory)` unless it is there already for the same `inputs`."""
        fp = fingerprint({"stage": name, "inputs": inputs})
        final = self.path / name
        record = self.record(name)
        if record is not None and record["fingerprint"] == fp and not force:
            return StageResult(name, final, record["seconds"], True, fp)
        partial = self.partial(name, fp)
        for stale in self.path.glob(f".{name}-*.partial"):
            if stale != partial:  # it was made for other inputs
                shutil.rmtree(stale)
        start = time.perf_counter()
        with guard_disk(self.path):
            partial.mkdir(exist_ok=True)
            clock = partial / ".seconds"  # earlier attempts count: the stage's cost is what it really took
            spent = float(clock.read_text()) if clock.exists() else 0.0
            try:
                fn(partial)
            finally:
                seconds = spent + time.perf_counter() - start
                if partial.is_dir():
                    try:
                        clock.write_text(str(seconds))
                    except OSError:
                        pass  # a full disk already has its own error on the way
            clock.unlink()
            write_json(partial / "stage.json", {"name": name, "fingerprint": fp, "seconds": seconds, "inputs": inputs})
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
        return StageResult(name, final, seconds, False, fp)


@contextmanager
def guard_disk(path: Path) -> Iterator[None]:
    """Turn 'no space left on device' into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DiskFullError(
            f"no space left on the disk of {path}",
            "Free some space and run the same command again: it goes on from here.",
        ) from error
