"""`edgekd profile` of everything that it takes, on this machine."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.cli import app
from edgekd.export import export_fp32
from edgekd.export.metadata import describe
from edgekd.models import build_model
from edgekd.profile.samples import read_samples
from edgekd.stage import digest_file, write_json

HERE = ("--target", "x86-cpu", "--seconds", 0, "--warmup", 1)


def edgekd(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows(*arguments: object) -> list[dict[str, Any]]:
    done = edgekd("profile", *arguments, "--json")
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained ResNet-8 for the digits."""
    import torch
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("fp32")
    spec = ModelSpec("edgekd", "resnet8", 10, (1, 8, 8), mean=(0.3,), std=(0.4,))
    torch.manual_seed(0)
    save_file(build_model(spec).state_dict(), path / "model.safetensors")
    Checkpoint(str(path), spec).save()
    return path


@pytest.fixture(scope="module")
def graph(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgekd.models import load_checkpoint

    loaded = Checkpoint.load(checkpoint)
    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    metadata = describe(loaded.spec, loaded.fingerprint())
    export_fp32(load_checkpoint(loaded), path, loaded.spec.input_shape, 18, metadata=metadata)
    return path


@pytest.fixture
def run(graph: Path, tmp_path: Path) -> Path:
    """As much of a run directory as profile reads."""
    out = tmp_path / "run"
    (out / "export").mkdir(parents=True)
    (out / ".edgekd").touch()
    shutil.copy(graph, out / "export" / "student-fp32.onnx")
    record = {"path": "student-fp32.onnx", "artifact": "onnx-fp32", "precision": "fp32", "opset": 18}
    write_json(out / "export" / "export.json", [{**record, "input_shape": [1, 8, 8]}])
    write_json(out / "run.json", {"config": {"data": "digits", "target": "x86-cpu"}})
    return out


@pytest.fixture
def bundle(graph: Path, tmp_path: Path) -> Path:
    """As much of a bundle as profile reads."""
    out = tmp_path / "bundle"
    name = "models/student-fp32/1/model.onnx"
    (out / name).parent.mkdir(parents=True)
    shutil.copy(graph, out / name)
    model = {"name": "student-fp32", "artifact": "onnx-fp32", "precision": "fp32", "scheme": None, "opset": 18}
    model |= {"path": name, "inputs": [{"name": "images", "dtype": "float32", "shape": [None, 1, 8, 8]}]}
    files = {name: {"sha256": digest_file(out / name), "bytes": (out / name).stat().st_size}}
    keys = dict.fromkeys(("target", "requires", "default", "provenance", "versions"))
    write_json(out / "MANIFEST.json", {**keys, "models": [model], "files": files})
    return out


def test_batches_are_a_list_or_repeated(graph: Path) -> None:
    found = rows(graph, *HERE, "--batch", "1,4", "--batch", 2)
    assert [row["batch"] for row in found] == [1, 4, 2]
    assert all(row["n"] == 200 and row["p90_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["max_ms"] for row in found)
    assert all(row["min_ms"] <= row["p50_ci95_ms"][0] <= row["p50_ms"] <= row["p50_ci95_ms"][1] for row in found)
    assert len(found[0]["quantiles_ms"]) == 101 and found[0]["quantiles_ms"][100] == found[0]["max_ms"]
    for text in ("1,x", "0", ""):
        done = edgekd("profile", graph, *HERE, "--batch", text)
        assert done.exit_code == 2 and "--batch" in done.output


def test_it_lasts_as_long_as_is_asked_for(graph: Path) -> None:
    (row,) = rows(graph, "--target", "x86-cpu", "--seconds", 0.4)
    assert row["n"] * row["mean_ms"] >= 400 and row["n"] > 200
    assert row["conditions"]["warmup_runs"] >= 50 and row["conditions"]["least_seconds"] == 0.4
    assert row["conditions"]["runtime_s"] <= row["conditions"]["wall_s"]


def test_a_checkpoint_a_run_and_a_bundle(checkpoint: Path, run: Path, bundle: Path, tmp_path: Path) -> None:
    zipped = tmp_path / "bundle.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for file in bundle.rglob("*.*"):
            archive.write(file, file.relative_to(bundle))
    before = sorted(run.rglob("*"))
    for source in (checkpoint, run, bundle, zipped):
        (row,) = rows(source, *HERE)
        assert (row["artifact"], row["precision"], row["n"]) == ("onnx-fp32", "fp32", 200)
    assert sorted(run.rglob("*")) == before  # nothing is written into it
    (row,) = rows(run, "--seconds", 0)  # a run's own target
    assert row["target"] == "x86-cpu"


def test_a_bundle_that_was_changed_is_not_measured(bundle: Path) -> None:
    (model,) = bundle.rglob("*.onnx")
    model.write_bytes(model.read_bytes() + b"\0")
    done = edgekd("profile", bundle, *HERE)
    assert done.exit_code == 2 and "student-fp32/1/model.onnx is not as it was packed" in done.stderr


def test_accuracy_of_the_session_that_was_timed(graph: Path, checkpoint: Path) -> None:
    from edgekd.data import load_dataset
    from edgekd.profile import predict
    from edgekd.profile.devices import load_device

    small, large = rows(graph, *HERE, "--batch", "1,16", "--data", "digits")
    test = load_dataset("digits").test
    logits = predict(graph, test.images, (0.3,), (0.4,), load_device("x86-cpu"))
    accuracy = large["accuracy"]
    assert small["accuracy"] is None
    assert accuracy["correct"] == int((logits.argmax(axis=1) == test.labels).sum())
    assert (accuracy["n"], accuracy["value"]) == (len(test.labels), accuracy["correct"] / len(test.labels))
    assert accuracy["normalised_with"] == {"mean": [0.3], "std": [0.4], "of": "the graph"}
    done = edgekd("profile", graph, *HERE, "--data", "digits")
    assert done.exit_code == 0 and f"top-1 {100 * accuracy['value']:.2f} %" in done.stdout


def test_images_of_another_size_are_refused(graph: Path, tmp_path: Path) -> None:
    images, labels = np.arange(40 * 36, dtype=np.uint8).reshape(40, 6, 6, 1), np.arange(40) % 4
    np.savez(tmp_path / "six.npz", x_train=images, y_train=labels)
    done = edgekd("profile", graph, *HERE, "--data", tmp_path / "six.npz")
    assert done.exit_code == 2 and "takes images of (8, 8, 1)" in done.stderr


def test_several_targets_samples_and_a_comparison(graph: Path, tmp_path: Path) -> None:
    own = tmp_path / "my-box.yaml"
    own.write_text("title: My box\nkind: cpu\nbackend: onnxruntime-cpu\nscheme: ort\n")
    out = tmp_path / "out"
    found = rows(graph, *HERE, "--target", own, "--out", out)
    assert [row["target"] for row in found] == ["x86-cpu", "my-box"]
    assert json.loads((out / "latency.json").read_text()) == found
    (report,), _ = read_samples(out / "samples" / "my-box-batch-1.npz")
    assert {**report.summary(), "roofline": None} == found[1]

    done = edgekd("profile", graph, *HERE, "--compare", out / "latency.json")
    assert done.exit_code == 0 and "95 % interval" in done.stdout, done.output
    (row,) = rows(graph, *HERE, "--batch", 1, "--compare", out / "latency.json")
    assert row["comparison"]["against"] == "student.onnx" and row["comparison"]["differs"] == {}
    done = edgekd("profile", graph, *HERE, "--batch", 3, "--compare", out / "latency.json")
    assert done.exit_code == 2 and "nothing of the same target and batch" in done.stderr


def test_a_scenario_says_what_it_is_short_of(graph: Path) -> None:
    (row,) = rows(graph, *HERE, "--scenario", "single-stream")
    scenario = row["scenario"]
    assert "not an MLPerf result" in scenario["is"] and scenario["queries"] == row["n"] >= 64
    assert scenario["value"] >= scenario["p90_ms"] and "MLPerf asks for 600" in scenario["short_of"][0]
    (row,) = rows(graph, *HERE, "--scenario", "offline", "--batch", 512)
    assert row["n"] * 512 >= 24_576 and len(row["scenario"]["short_of"]) == 1
    done = edgekd("profile", graph, *HERE, "--scenario", "offline", "--batch", 1024)
    assert "offline, throughput" in done.stdout and "not an MLPerf result" in done.stdout
    done = edgekd("profile", graph, *HERE, "--scenario", "single-stream", "--batch", 8)
    assert done.exit_code == 2 and "one image at a time" in done.stderr


def test_blocks_are_printed(graph: Path) -> None:
    done = edgekd("profile", graph, *HERE, "--per-layer")
    assert done.exit_code == 0 and "by its blocks" in done.stdout and "layer3.0" in done.stdout


def test_what_cannot_be_profiled(graph: Path, tmp_path: Path) -> None:
    engine = tmp_path / "student.engine"
    engine.write_bytes((b"ftrt" + struct.pack("<IQQ", 0, 1, 100) + bytes([8, 5, 2, 2])).ljust(100, b"\0"))
    for words, said in (
        ((engine, *HERE), "is a TensorRT engine, and x86-cpu runs onnxruntime-cpu"),
        ((tmp_path, *HERE), "is no run with an export, checkpoint or bundle"),
        ((tmp_path / "none.onnx", *HERE), "none.onnx does not exist"),
        ((graph, *HERE, "--backend", "onnxruntime-gpu"), "--backend: unknown name 'onnxruntime-gpu'"),
        ((graph, *HERE, "--cuda-graph"), "--cuda-graph: onnxruntime-cpu does not run on a GPU"),
        ((graph, *HERE, "--data", tmp_path / "none"), "none"),
        ((graph,), "--target"),
    ):
        done = edgekd("profile", *words)
        assert done.exit_code == 2 and said in done.output, done.output


def test_a_config_takes_the_options_of_its_stage_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for option in (("--backend", "x"), ("--compare", "x.json"), ("--cuda-graph",), ("--target", "a", "--target", "b")):
        done = edgekd("profile", file, *option)
        assert done.exit_code == 2 and "not for the stage" in done.output
