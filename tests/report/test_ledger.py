from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from edgekd.artifacts import Checkpoint, ModelSpec, OnnxModel
from edgekd.data import Dataset, Split
from edgekd.errors import RunError
from edgekd.intervals import wilson
from edgekd.models import build_model
from edgekd.profile import load_device
from edgekd.progress import NullProgress
from edgekd.report import ledger
from edgekd.report.ledger import graph_files, measure_ledger, run_path

SHAPE, CLASSES, N = (3, 8, 8), 4, 150
OWN = {"teacher": ((0.2, 0.3, 0.4), (0.5, 0.25, 0.2)), "student": ((0.5, 0.5, 0.5), (0.3, 0.3, 0.3))}


def linear_graph(path: Path, weights: np.ndarray, external: bool = False) -> None:
    """logits = flatten(images) @ weights."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["images"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path), save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)


@pytest.fixture
def case(tmp_path: Path) -> dict[str, Any]:
    """Arguments of measure_ledger in a run whose export stage is under way; `weights` are those of the graphs."""
    rng = np.random.default_rng(0)
    out = tmp_path / f".export-{'a' * 16}.partial"
    quantized, distilled = tmp_path / "quantize", tmp_path / "distill"
    for directory in (out, quantized, distilled):
        directory.mkdir()
    weights = {name: rng.normal(size=(192, CLASSES)).astype(np.float32) for name in ("teacher", "fp32", "int8")}
    files = {name: out / f"{name if name == 'teacher' else f'student-{name}'}.onnx" for name in weights}
    for name, file in files.items():
        linear_graph(file, weights[name], external=name == "teacher")
    (quantized / "student-ptq.onnx").write_bytes(files["int8"].read_bytes())
    spec = ModelSpec("edgekd", "cifar-resnet", CLASSES, SHAPE, {"depths": (1, 1, 1), "widths": (8, 8, 8)})
    spec = replace(spec, mean=OWN["student"][0], std=OWN["student"][1])
    save_file(build_model(spec).state_dict(), distilled / "model.safetensors")
    images = rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    split = Split(images, rng.integers(0, CLASSES, N))
    data = Dataset("random", ("a", "b", "c", "d"), split, split, split, (0.5,) * 3, (0.25,) * 3, False, "d1")
    model = {name: OnnxModel(str(file), name, "fp32", 18, SHAPE) for name, file in files.items()}
    model["int8"] = replace(model["int8"], artifact="onnx-int8", precision="int8")
    arguments = {
        "out": out,
        "teacher": model["teacher"],
        "teacher_spec": replace(spec, mean=OWN["teacher"][0], std=OWN["teacher"][1]),
        "student": Checkpoint(str(distilled), spec),
        "ptq": replace(model["int8"], path=str(quantized / "student-ptq.onnx")),
        "qad": None,
        "fp32": model["fp32"],
        "shipped": model["int8"],
        "data": data,
        "taken": data,
        "device": load_device("x86-cpu"),
        "progress": NullProgress(),
    }
    return {"arguments": arguments, "weights": weights, "data": data, "out": out}


def expected(case: dict[str, Any], name: str) -> np.ndarray:
    """The classes a graph must predict, by numpy alone."""
    mean, std = OWN["teacher" if name == "teacher" else "student"]
    x = (case["data"].test.images / 255 - mean) / std
    return (x.transpose(0, 3, 1, 2).reshape(N, -1) @ case["weights"][name]).argmax(1)


def measure(case: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["artifact"]: row for row in measure_ledger(**case["arguments"])}


def test_every_artifact_is_measured_on_all_test_images(case: dict[str, Any]) -> None:
    rows = measure(case)
    assert list(rows) == ["teacher", "student-fp32", "student-ptq", "onnx-fp32", "onnx-int8"]
    labels, teacher = case["data"].test.labels, expected(case, "teacher")
    for artifact, name in (("teacher", "teacher"), ("onnx-fp32", "fp32"), ("onnx-int8", "int8")):
        classes = expected(case, name)
        assert rows[artifact]["value"] == (classes == labels).mean()
        assert rows[artifact]["agreement_with_teacher"] == (classes == teacher).mean()
        assert rows[artifact]["n"] == N and rows[artifact]["metric"] == "top1"
        assert rows[artifact]["runtime"].startswith("onnxruntime-cpu 1.")
    assert rows["teacher"]["agreement_with_teacher"] == 1
    assert rows["student-fp32"]["runtime"].startswith("torch 2.")
    assert json.loads((case["out"] / "ledger.json").read_text()) == list(rows.values())


def test_paths_and_sizes_are_those_of_the_run(case: dict[str, Any]) -> None:
    rows = measure(case)
    assert {name: row["path"] for name, row in rows.items()} == {
        "teacher": "export/teacher.onnx",
        "student-fp32": "distill/model.safetensors",
        "student-ptq": "quantize/student-ptq.onnx",
        "onnx-fp32": "export/student-fp32.onnx",
        "onnx-int8": "export/student-int8.onnx",
    }
    teacher = case["out"] / "teacher.onnx"
    assert graph_files(teacher) == (teacher, case["out"] / "teacher.onnx.data")
    assert rows["teacher"]["size_bytes"] == teacher.stat().st_size + 192 * CLASSES * 4
    assert run_path(Path("/elsewhere/x.onnx"), case["out"]) == "x.onnx"


def test_a_killed_measurement_goes_on(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import edgekd.profile as profile

    predict, seen = profile.predict, []

    def counted(model: OnnxModel, *rest: Any, **options: Any) -> Any:
        seen.append(Path(model.path).name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return predict(model, *rest, **options)

    monkeypatch.setattr(ledger, "CHUNK", N)
    monkeypatch.setattr(profile, "predict", counted)
    with pytest.raises(KeyboardInterrupt):
        measure(case)
    assert seen == ["teacher.onnx", "student-ptq.onnx", "student-fp32.onnx"]
    assert not (case["out"] / "ledger.json").exists()
    rows = measure(case)
    assert seen[3:] == ["student-fp32.onnx"]  # the rest is known, and onnx-int8 has the bytes of student-ptq
    assert rows["onnx-int8"]["value"] == (expected(case, "int8") == case["data"].test.labels).mean()
    assert not (case["out"] / ".ledger").exists()


def test_chunks_do_not_change_the_figures(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(case)
    monkeypatch.setattr(ledger, "CHUNK", 64)
    assert measure(case) == whole


def test_logits_that_are_not_finite_are_an_error(case: dict[str, Any]) -> None:
    linear_graph(case["out"] / "student-int8.onnx", np.full((192, CLASSES), np.nan, np.float32))
    with pytest.raises(RunError, match="onnx-int8.*not finite"):
        measure(case)
    assert not (case["out"] / "ledger.json").exists()


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(9169, 10_000, 0.91133, 0.92215), (0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (5, 10, 0.23659, 0.76341)],
)
def test_wilson(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=2e-5)
