"""What a file is: an ONNX graph, an engine's header, a checkpoint or a bundle, told apart by content."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from edgekd.errors import ModelError

MANIFEST, CHECKPOINT = "MANIFEST.json", "checkpoint.json"


def describe(path: Path) -> dict[str, Any]:
    """The record of a file; `kind` is onnx, engine, checkpoint or bundle. Raises ModelError for anything else."""
    from edgekd.describe.engine import is_engine

    fix = "Name an .onnx file, an engine, a checkpoint's directory, or a bundle."
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return _bundle(path)
        if (path / CHECKPOINT).is_file():
            from edgekd.describe.checkpoint import describe_checkpoint

            return describe_checkpoint(path)
        raise ModelError(f"{path} holds neither {CHECKPOINT} nor {MANIFEST}", fix)
    if not path.is_file():
        raise ModelError(f"{path} does not exist", fix)
    if zipfile.is_zipfile(path):
        return _bundle(path)
    if path.suffix == ".safetensors" and (path.parent / CHECKPOINT).is_file():
        from edgekd.describe.checkpoint import describe_checkpoint

        return describe_checkpoint(path.parent)
    if is_engine(path):
        from edgekd.describe.engine import describe_engine

        return describe_engine(path)
    from edgekd.describe.onnx import describe_onnx

    return describe_onnx(path)


def _bundle(path: Path) -> dict[str, Any]:
    from edgekd.describe.bundle import describe_bundle

    return describe_bundle(path)
