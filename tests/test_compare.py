"""`edgekd diff`: outputs and latency of two artifacts on the same inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from typer.testing import CliRunner

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.cli import app
from edgekd.compare import compare
from edgekd.errors import ModelError, TargetError
from edgekd.export.onnx import export_fp32
from edgekd.models import build_model

SPEC = ModelSpec("edgekd", "resnet8", 10, (1, 8, 8), mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained ResNet-8 for the digits."""
    path = tmp_path_factory.mktemp("fp32")
    torch.manual_seed(0)
    save_file(build_model(SPEC).state_dict(), path / "model.safetensors")
    Checkpoint(str(path), SPEC).save()
    return path


@pytest.fixture(scope="module")
def graph(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgekd.models import load_checkpoint

    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    export_fp32(load_checkpoint(Checkpoint.load(checkpoint)), path, SPEC.input_shape, 18)
    return path


def shifted(graph: Path, out: Path, by: float) -> Path:
    """The same graph with `by` added to the logit of class 3."""
    model = onnx.load(graph)
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [10])
    values = numpy_helper.to_array(bias).copy()
    values[3] += by
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, out)
    return out


def test_two_graphs(graph: Path, tmp_path: Path) -> None:
    record = compare(graph, shifted(graph, tmp_path / "other.onnx", 100), count=32, warmup=1)
    assert record["outputs"]["n"] == 32
    assert record["outputs"]["max_abs_error"] == pytest.approx(100, abs=1e-3)
    assert record["outputs"]["mean_abs_error"] == pytest.approx(10, abs=1e-3)
    assert record["outputs"]["top1_agreement"] < 0.5 and record["outputs"]["cosine"] < 0.9
    assert "random pixels" in record["inputs"]
    rows = record["latency"]
    assert [row["artifact"] for row in rows] == [str(graph), str(tmp_path / "other.onnx")]
    assert all(row["measured"] and row["n"] == 200 and row["p50_ms"] > 0 for row in rows)


def test_a_graph_is_itself(graph: Path) -> None:
    outputs = compare(graph, graph, count=8, warmup=1)["outputs"]
    assert (outputs["max_abs_error"], outputs["top1_agreement"]) == (0, 1)
    assert outputs["cosine"] == pytest.approx(1)


def test_a_checkpoint_and_its_graph(checkpoint: Path, graph: Path) -> None:
    arguments = [
        "diff",
        checkpoint,
        graph,
        "--data",
        "digits",
        "--count",
        "40",
        "--batch",
        "1",
        "--batch",
        "2",
        "--json",
    ]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    record: dict[str, Any] = json.loads(done.stdout)
    assert record["inputs"] == "40 validation images of digits"
    assert record["normalised_with"] == {"mean": [0.3], "std": [0.4]}  # the checkpoint's
    assert record["outputs"]["top1_agreement"] == 1 and record["outputs"]["max_rel_error"] < 1e-4
    assert record["a"]["runtime"].startswith("torch") and record["b"]["runtime"].startswith("onnxruntime")
    assert [row["batch"] for row in record["latency"]] == [1, 1, 2, 2]


def test_printed(graph: Path, tmp_path: Path) -> None:
    arguments = ["diff", graph, shifted(graph, tmp_path / "other.onnx", 0.5), "--count", 4]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    for words in ("max abs error   0.5", "top1 agreement", "p50 ms", "other.onnx"):
        assert words in done.stdout, words


def test_a_fixed_batch(graph: Path, tmp_path: Path) -> None:
    model = onnx.load(graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "one.onnx")
    outputs = compare(graph, tmp_path / "one.onnx", count=5, warmup=1)["outputs"]
    assert outputs["n"] == 5 and outputs["max_rel_error"] < 1e-4


def test_what_cannot_be_compared(graph: Path, tmp_path: Path) -> None:
    spec = ModelSpec("edgekd", "resnet8", 10, (1, 12, 12))
    export_fp32(build_model(spec), tmp_path / "larger.onnx", spec.input_shape, 18)
    with pytest.raises(ModelError, match=r"\(8, 8, 1\).*\(12, 12, 1\)"):
        compare(graph, tmp_path / "larger.onnx")
    export_fp32(build_model(ModelSpec("edgekd", "resnet8", 4, (1, 8, 8))), tmp_path / "fewer.onnx", (1, 8, 8), 18)
    with pytest.raises(ModelError, match=r"\(10,\).*\(4,\)"):
        compare(graph, tmp_path / "fewer.onnx", count=2)
    with pytest.raises(ModelError, match="does not exist"):
        compare(graph, tmp_path / "nothing.onnx")
    with pytest.raises(TargetError, match="runs on processors"):
        compare(graph, graph, target="rtx-4090")


def test_inputs_are_the_same_again() -> None:
    from edgekd.compare import _inputs

    one, other = (_inputs(None, (8, 8, 3), 4)[0] for _ in range(2))
    assert one.shape == (4, 8, 8, 3) and np.array_equal(one, other)
