"""What a bundle holds, that the same run gives the same bytes, and which runs cannot be bundled."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from edgekd.bundle import write_bundle
from edgekd.bundle.goldens import choose
from edgekd.cli import app
from edgekd.data.dataset import Split
from edgekd.errors import DataError, RunDirectoryError
from edgekd.stage import digest_file, write_json

PROGRAMS = {"manifest.py", "runner.py", "verify.py", "serve.py", "cpp/CMakeLists.txt", "cpp/runner.cpp"}
HEADERS = {f"cpp/{name}.hpp" for name in ("npz", "session", "onnxruntime_session", "tensorrt_session")}
RECORDS = {"labels.json", "preprocessing.json", "goldens.json", "goldens.npz", "MODEL_CARD.md"}
MODELS = {
    f"models/{name}/{file}"
    for name in ("student-fp32", "student-int8")
    for file in ("1/model.onnx", "config.pbtxt", "labels.txt")
}


def files(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def edit(file: Path, change: Any) -> None:
    record = json.loads(file.read_text())
    change(record)
    write_json(file, record)


def test_what_is_in_it(run: Path, written: Path) -> None:
    manifest = json.loads((written / "MANIFEST.json").read_text())
    held = files(written)
    assert manifest["files"].keys() == PROGRAMS | HEADERS | RECORDS | MODELS
    assert held.keys() == manifest["files"].keys() | {"MANIFEST.json", "MANIFEST.sha256"}
    for name, entry in manifest["files"].items():
        assert entry == {"sha256": digest_file(written / name), "bytes": len(held[name])}
    assert held["MANIFEST.sha256"].decode() == f"{digest_file(written / 'MANIFEST.json')}  MANIFEST.json\n"
    assert manifest["default"] == "student-int8" and manifest["built"] == []
    assert manifest["requires"] == {"compute_capability": None, "tensorrt": None}
    for model in manifest["models"]:
        assert held[model["path"]] == (run / "export" / f"{model['name']}.onnx").read_bytes()
        assert model["inputs"] == [{"name": "images", "dtype": "float32", "shape": [None, 1, 8, 8]}]
        assert model["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [None, 10]}]
    assert manifest["provenance"]["export"] == json.loads((run / "export" / "stage.json").read_text())["fingerprint"]
    assert json.loads(held["labels.json"]) == [str(i) for i in range(10)]


def test_goldens_are_what_the_graphs_give(written: Path) -> None:
    """By ONNX Runtime alone, from the pixels and preprocessing.json."""
    preprocessing = json.loads((written / "preprocessing.json").read_text())
    stored = np.load(written / "goldens.npz")
    pixels = stored["pixels"]
    assert pixels.dtype == np.uint8 and pixels.shape == (16, 8, 8, 1)
    mean, std = (np.array(preprocessing[key], np.float32) for key in ("mean", "std"))
    images = ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    for name in ("student-fp32", "student-int8"):
        session = onnxruntime.InferenceSession(
            written / "models" / name / "1" / "model.onnx", providers=["CPUExecutionProvider"]
        )
        (logits,) = session.run(None, {"images": images})
        atol = float(stored[f"{name}/logits.atol"])
        assert 0 < atol and np.abs(logits - stored[f"{name}/logits"]).max() <= max(atol, 1e-4)
    record = json.loads((written / "goldens.json").read_text())
    for name in ("student-fp32", "student-int8"):
        figures = record["models"][name]["logits"]
        assert figures["runs"].keys() >= {"one image a call", "operator by operator", "torch"}
        assert figures["atol"] == record["margin"] * max(figures["runs"].values()) == stored[f"{name}/logits.atol"]
        assert figures["atol"] < 0.2 * figures["largest"]


def test_golden_images_are_of_every_class() -> None:
    labels = np.array([2, 2, 0, 0, 0, 1, 2])
    split = Split(np.zeros((7, 1, 1, 1), np.uint8), labels)
    assert choose(split, 3).tolist() == [0, 2, 5]
    assert choose(split, 5).tolist() == [0, 1, 2, 3, 5]
    assert choose(split, 16).tolist() == list(range(7))


def test_same_run_same_bytes(run: Path, written: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "elsewhere" / "of another name"))
    write_bundle(moved, tmp_path / "again")
    assert files(tmp_path / "again") == files(written)
    for name in ("a.zip", "b.zip"):
        write_bundle(run, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files(written)
    assert not list(tmp_path.glob(".*"))


def test_card_says_what_was_measured(run: Path, written: Path) -> None:
    card = (written / "MODEL_CARD.md").read_text()
    for row in json.loads((run / "export" / "ledger.json").read_text()):
        if row["artifact"] in ("teacher", "onnx-int8"):
            assert f"{100 * row['value']:.2f} %" in card and str(row["size_bytes"]) in card
    for row in json.loads((run / "profile" / "latency.json").read_text()):
        assert f"{row['p50_ms']:.3f} ms" in card
    assert "`digits`: 1368 images" in card and "trained by this run" in card and "1 thread" in card
    assert "TensorRT" not in card


def test_card_without_a_latency_of_these_graphs(run: Path, tmp_path: Path) -> None:
    stale = Path(shutil.copytree(run, tmp_path / "stale"))
    edit(stale / "profile" / "stage.json", lambda record: record["inputs"]["models"].reverse())
    write_bundle(stale, tmp_path / "bundle")
    assert "## Latency\n\nNot measured." in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("source", "licence"), [("timm:resnet18", "**apache-2.0**"), ("torchvision:resnet18", "**unknown**")]
)
def test_licence_of_the_teacher(run: Path, tmp_path: Path, source: str, licence: str) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    edit(copy / "run.json", lambda record: record["config"]["teacher"].update(source=source))
    write_bundle(copy, tmp_path / "bundle")
    assert licence in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()


def test_what_is_there_is_not_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(RunDirectoryError, match="is there already"):
        write_bundle(run, tmp_path / "bundle")
    write_bundle(run, tmp_path / "bundle", force=True)
    assert (tmp_path / "bundle" / "MANIFEST.json").is_file()


def test_a_run_without_export(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no export"):
        write_bundle(tmp_path, tmp_path / "bundle")


def test_a_run_whose_data_changed(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    edit(copy / "run.json", lambda record: record["data"].update(digest="0" * 64))
    with pytest.raises(DataError, match="not what the run was made with"):
        write_bundle(copy, tmp_path / "bundle")
    assert {entry.name for entry in tmp_path.iterdir()} == {"copy"}


def test_from_the_command_line(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(run), "--bundle", str(tmp_path / "b.zip")])
    assert done.exit_code == 0, done.output
    assert "student-fp32, student-int8 for x86-cpu" in done.stdout
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "b.zip"), "--json"])
    record = json.loads(done.stdout)
    assert done.exit_code == 0 and record["ok"]
    assert [model["outputs"]["logits"]["max_abs_error"] for model in record["models"]] == [0, 0]
    done = CliRunner().invoke(app, ["export", str(run), "--sign", "key.pem"])
    assert done.exit_code == 2 and "--bundle" in done.stderr
