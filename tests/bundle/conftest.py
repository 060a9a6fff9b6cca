"""A small run of the digits, its bundle for the processor, and one for a Jetson; the programs that travel in them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgekd.bundle
from edgekd.bundle import write_bundle
from edgekd.config import load_config
from edgekd.pipeline import compress
from edgekd.stage import digest_file, write_json

DEVICE = Path(edgekd.bundle.__file__).parent / "device"
sys.path.insert(0, str(DEVICE))  # they import each other by their bare names, as they do in a bundle

SETTINGS = {
    "data": "digits",
    "target": "x86-cpu",
    "teacher.name": "resnet8",
    "teacher.train.epochs": 1,
    "search.student": "resnet8",
    "distill.epochs": 1,
    "distill.views": 1,
    "quantize.calibration": 64,
    "quantize.qad.epochs": 0,
    "profile.batches": (1, 4),
    "profile.warmup": 1,
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "RUN"
    compress(load_config(flags=SETTINGS), out)
    return out


@pytest.fixture(scope="session")
def jetson_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run under the name of another target: its graphs are not for TensorRT, which no test here asks."""
    out = tmp_path_factory.mktemp("jetson") / "RUN"
    shutil.copytree(run, out)
    record = json.loads((out / "run.json").read_text())
    record["config"]["target"] = "jetson-orin-nano"
    write_json(out / "run.json", record)
    return out


@pytest.fixture(scope="session")
def written(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "bundle"
    write_bundle(run, out)
    return out


@pytest.fixture(scope="session")
def written_for_pixels(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs that take pixels of another size and give more than logits."""
    root = tmp_path_factory.mktemp("pixels")
    shutil.copytree(run, root / "RUN")
    flags = {"export.pixels": True, "export.resize": 16, "export.softmax": True, "export.top_k": 3}
    compress(load_config(flags={**SETTINGS, **flags}), root / "RUN")
    write_bundle(root / "RUN", root / "bundle")
    return root / "bundle"


@pytest.fixture(scope="session")
def written_for_jetson(jetson_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "bundle"
    write_bundle(jetson_run, out)
    return out


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    """A copy to do something to."""
    return Path(shutil.copytree(written, tmp_path / "bundle"))


@pytest.fixture
def jetson(written_for_jetson: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written_for_jetson, tmp_path / "bundle"))


@pytest.fixture
def reseal() -> Callable[..., None]:
    """Write the manifest again, changed by `edit`, with the digests that the files have now: a forger's work."""

    def write(root: Path, edit: Callable[[dict[str, Any]], Any] = lambda manifest: None) -> None:
        manifest = json.loads((root / "MANIFEST.json").read_text())
        for name in manifest["files"]:
            if (root / name).is_file():
                manifest["files"][name] = {"sha256": digest_file(root / name), "bytes": (root / name).stat().st_size}
        edit(manifest)
        write_json(root / "MANIFEST.json", manifest)
        (root / "MANIFEST.sha256").write_text(f"{digest_file(root / 'MANIFEST.json')}  MANIFEST.json\n")

    return write
