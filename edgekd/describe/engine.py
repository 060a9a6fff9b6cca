"""The header of a serialised engine: what made it, read without a GPU and without its runtime.

Bytes 0 to 3 are the magic tag, 24 to 27 the version: major, minor, patch, build. Seen on engines of TensorRT-RTX 1.7.1
and in trtexec's own reading of a plan's version (TensorRT 11.1, samples/common/sampleEngines.cpp).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekd.errors import ModelError
from edgekd.stage import digest_file

RUNTIMES = {b"ftrt": "TensorRT", b"vtrt": "TensorRT-RTX"}
HEADER = 28  # bytes


def is_engine(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in RUNTIMES


def describe_engine(path: Path) -> dict[str, Any]:
    """Runtime and version by the header; with `build.sh`'s record beside it, device and options too.

    Raises ModelError when the header is cut off.
    """
    with path.open("rb") as file:
        header = file.read(HEADER)
    if len(header) < HEADER:
        raise ModelError(f"{path} is cut off after {len(header)} bytes", "Build the engine again.")
    record: dict[str, Any] = {
        "kind": "engine",
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": digest_file(path),
        "runtime": RUNTIMES[header[:4]],
        "version": ".".join(str(byte) for byte in header[24:HEADER]),
        "shapes": None,  # in the engine, for its runtime on its GPU alone
    }
    beside = path.with_name(f"{path.name}.json")
    if beside.is_file():
        record["provenance"] = json.loads(beside.read_text())
    return record
