"""What can be profiled, from its path: an ONNX file, an engine, a bundle, a run directory or a checkpoint."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekd.artifacts import Checkpoint, OnnxModel
from edgekd.catalog import BACKENDS, SCHEMES, find
from edgekd.config import ExportConfig
from edgekd.describe import CHECKPOINT, MANIFEST
from edgekd.describe.bundle import describe_bundle
from edgekd.describe.engine import is_engine
from edgekd.errors import BundleError, ModelError
from edgekd.profile.device import Device
from edgekd.stage import digest_file

EXPORTED = Path("export") / "export.json"


def find_models(path: Path, device: Device, scratch: Path) -> list[OnnxModel]:
    """The models at `path`, to be measured side by side on `device`.

    A run directory and a bundle have several; a checkpoint is exported to `scratch`, where a zip file is unpacked too.
    For a backend that runs checkpoints themselves a model's path is the checkpoint's. Raises ModelError for anything
    else, BundleError for a model of a bundle that is not as it was packed.
    """
    takes = find(BACKENDS, "device.backend", device.backend).takes
    if path.is_dir() and (path / CHECKPOINT).is_file():
        return [_checkpoint(path, device, scratch, takes)]
    if takes == "checkpoint":
        raise ModelError(
            f"{path} is no checkpoint, and {device.backend} runs nothing else", "Name a directory that distill wrote."
        )
    if path.is_dir() and (path / EXPORTED).is_file():
        rows = json.loads((path / EXPORTED).read_text())
        return [OnnxModel.from_json({**row, "path": str(path / "export" / row["path"])}) for row in rows]
    if (path.is_dir() and (path / MANIFEST).is_file()) or (path.is_file() and zipfile.is_zipfile(path)):
        return _bundle(path, scratch)
    if path.is_dir():
        raise ModelError(
            f"{path} is no run with an export, checkpoint or bundle", "Name one, or an .onnx file or engine."
        )
    if path.is_file() and is_engine(path):
        return [_engine(path, device, takes)]
    from edgekd.standalone import read_onnx

    return [read_onnx(path)]


def _checkpoint(path: Path, device: Device, scratch: Path, takes: str) -> OnnxModel:
    checkpoint = Checkpoint.load(path)
    if takes == "checkpoint":
        if checkpoint.scheme is not None:
            raise ModelError(
                f"{path} is quantized ({checkpoint.scheme}), and {device.backend} has no such kernels",
                "Name the FP32 checkpoint that distill wrote.",
            )
        return OnnxModel(str(path), path.name, "fp32", 0, checkpoint.spec.input_shape)
    from edgekd.standalone import export_checkpoint

    model = export_checkpoint(path, scratch, ExportConfig(), target=device.name)
    return replace(model, artifact=f"onnx-{model.precision}")


def _engine(path: Path, device: Device, takes: str) -> OnnxModel:
    if takes != "engine":
        raise ModelError(
            f"{path} is a TensorRT engine, and {device.name} runs {device.backend}",
            "Name its ONNX file, or --backend tensorrt.",
        )
    return OnnxModel(str(path), path.name, "engine", 0, (0, 0, 0))


def _bundle(path: Path, scratch: Path) -> list[OnnxModel]:
    record = describe_bundle(path)
    root, files = (
        (path, _manifest(path)) if path.is_dir() else (scratch / path.stem, _unpack(path, scratch / path.stem))
    )
    models = []
    for row in record["models"]:
        beside = row["path"].rpartition("/")[0] + "/"
        for name in (name for name in files if name == row["path"] or name.startswith(beside)):
            file = root / name
            if not file.is_file() or digest_file(file) != files[name]["sha256"]:
                raise BundleError(f"{path}: {name} is not as it was packed", "Fetch the bundle again.")
        (_, channels, height, width), dtype = row["inputs"][0]["shape"], row["inputs"][0]["dtype"]
        shape = (channels, height, width) if dtype != "uint8" else (width, channels, height)
        model = OnnxModel(
            str(root / row["path"]), row["artifact"], row["precision"], row["opset"], shape, row["scheme"]
        )
        if row["scheme"] is not None and row["scheme"] not in SCHEMES:
            raise BundleError(f"{path} has the scheme {row['scheme']}, which is not known here", "Update edgekd.")
        models.append(model)
    return models


def _manifest(directory: Path) -> dict[str, Any]:
    files: dict[str, Any] = json.loads((directory / MANIFEST).read_text())["files"]
    return files


def _unpack(path: Path, directory: Path) -> dict[str, Any]:
    """The models of a zip file; zipfile keeps every name inside `directory`."""
    with zipfile.ZipFile(path) as archive:
        files: dict[str, Any] = json.loads(archive.read(MANIFEST))["files"]
        for name in (name for name in files if name.startswith("models/")):
            try:
                archive.extract(name, directory)
            except KeyError:
                raise BundleError(f"{path}: {name} is missing", "Fetch the bundle again.") from None
    return files
