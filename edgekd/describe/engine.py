"""What the header of a serialised engine says, read without a GPU and without its runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekd.describe.plan import MAGIC, read_header
from edgekd.stage import digest_file

RUNTIMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


def is_engine(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in MAGIC


def describe_engine(path: Path) -> dict[str, Any]:
    """Runtime, version and GPUs by the header; with the builder's record beside it, device and options too.

    Raises ModelError when the file is cut off.
    """
    header = read_header(path)
    sms = header.compute_capabilities
    record: dict[str, Any] = {
        "kind": "engine",
        "path": str(path),
        "bytes": header.bytes,
        "sha256": digest_file(path),
        "runtime": RUNTIMES[header.runtime],
        "version": header.version,
        "compute_capabilities": None if sms is None else [f"sm_{sm}" for sm in sms],
        "shapes": None,  # in the engine, for its runtime on its GPU alone
    }
    for beside in (path.with_name(f"{path.name}.json"), path.with_name("build.json")):  # of a bundle, of edgekd build
        if beside.is_file():
            record["provenance"] = json.loads(beside.read_text())
            break
    return record
