"""The Python runner as it lies in a bundle: the same numbers as ONNX Runtime, and no import of anything else."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import runner
from manifest import Failed, Refused
from runner import Runner

DEVICE = Path(runner.__file__).parent
PROGRAMS = sorted(DEVICE.glob("*.py"))

# Standard library, numpy and ONNX Runtime are found; whatever else this environment holds is not.
ALONE = """
import sys
allowed = set(sys.stdlib_module_names) | {"numpy", "onnxruntime", "manifest", "runner", "verify"}
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Finder())
import runpy
sys.argv = sys.argv[1:]
sys.path.insert(0, "")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("file", PROGRAMS, ids=lambda file: file.name)
def test_programs_are_python_3_6(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 6))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {"__future__", "dataclasses", "edgekd"} & (names | froms)  # annotations and dataclasses are of 3.7
    calls = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {"perf_counter_ns", "fromisoformat", "removeprefix"} & calls
    keywords = {k.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for k in node.keywords}
    assert not {"capture_output", "text", "missing_ok", "dirs_exist_ok"} & keywords


@pytest.mark.parametrize(
    "arguments",
    [["verify.py", "--json"], ["runner.py", "--time", "20"], ["runner.py", "--model", "student-fp32", "x.npy"]],
)
def test_with_numpy_and_onnxruntime_alone(bundle: Path, arguments: list[str], tmp_path: Path) -> None:
    pixels = np.load(bundle / "goldens.npz")["pixels"][:2]
    np.save(tmp_path / "x.npy", pixels)
    arguments = [str(tmp_path / word) if word == "x.npy" else word for word in arguments]
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *arguments], cwd=bundle, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    if arguments[0] == "verify.py":
        assert rows[0]["ok"] and [model["provider"] for model in rows[0]["models"]] == ["CPUExecutionProvider"] * 2
    elif "--time" in arguments:
        assert rows[0]["model"] == "student-int8" and 0 < rows[0]["p50_ms"] <= rows[0]["p99_ms"]
    else:
        logits = np.load(bundle / "goldens.npz")["student-fp32/logits"]
        assert [row["top"][0]["class"] for row in rows] == logits[:2].argmax(1).tolist()
        assert len(rows[0]["top"]) == 5 and rows[0]["top"][0]["label"] == str(rows[0]["top"][0]["class"])
    assert before == {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}  # no __pycache__


def test_infer(written: Path) -> None:
    stored = np.load(written / "goldens.npz")
    model = Runner(str(written), "student-int8", threads=1)
    (logits,) = model.infer(stored["pixels"]).values()
    assert np.array_equal(logits, stored["student-int8/logits"])
    one = np.concatenate([model.infer(stored["pixels"][i : i + 1])["logits"] for i in range(16)])
    assert np.abs(one - logits).max() <= stored["student-int8/logits.atol"]


@pytest.mark.parametrize("pixels", [np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 1), np.float32)])
def test_other_pixels_are_refused(written: Path, pixels: np.ndarray) -> None:
    with pytest.raises(Refused, match=r"takes uint8 \[N, 8, 8, 1\]"):
        Runner(str(written)).infer(pixels)


def fix_batch(path: Path, batch: int) -> None:
    """The graph with a batch of that size and no other."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    onnx.save(model, path)


def test_a_graph_of_one_batch_size(bundle: Path) -> None:
    stored = np.load(bundle / "goldens.npz")
    fix_batch(bundle / "models" / "student-fp32" / "1" / "model.onnx", 3)
    (logits,) = (
        Runner(str(bundle), "student-fp32").infer(stored["pixels"]).values()
    )  # 16 images: 5 batches and one more
    assert logits.shape == (16, 10)
    assert np.abs(logits - stored["student-fp32/logits"]).max() <= stored["student-fp32/logits.atol"]


def test_a_graph_that_takes_pixels(bundle: Path) -> None:
    """uint8 [N, H, W, C] goes in as it is; what follows is the same graph."""
    path = bundle / "models" / "student-fp32" / "1" / "model.onnx"
    model, stored = onnx.load(path), np.load(bundle / "goldens.npz")
    (old,) = model.graph.input
    nodes = [
        onnx.helper.make_node("Cast", ["pixels"], ["floats"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        onnx.helper.make_node("Add", ["scaled", "shift"], ["shifted"]),
        onnx.helper.make_node("Transpose", ["shifted"], [old.name], perm=[0, 3, 1, 2]),
    ]
    for name in ("scale", "shift"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(stored[name], name))
    rest = [*nodes, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(rest)
    model.graph.ClearField("input")
    model.graph.input.append(onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ["batch", 8, 8, 1]))
    onnx.save(model, path)
    record = json.loads((bundle / "preprocessing.json").read_text())
    record.update(input="pixels", dtype="uint8", layout="NHWC", mean=[], std=[])
    (bundle / "preprocessing.json").write_text(json.dumps(record))
    (logits,) = Runner(str(bundle), "student-fp32").infer(stored["pixels"]).values()
    assert np.abs(logits - stored["student-fp32/logits"]).max() <= stored["student-fp32/logits.atol"]


def test_graphs_that_prepare_pixels_themselves(written_for_pixels: Path) -> None:
    stored = np.load(written_for_pixels / "goldens.npz")
    assert stored["pixels"].shape[1:] == (16, 16, 1) and "scale" not in stored.files
    for model in ("student-fp32", "student-int8"):
        found = Runner(str(written_for_pixels), model).infer(stored["pixels"])
        assert list(found) == ["logits", "probabilities", "classes", "scores"]
        for name in ("logits", "probabilities", "scores"):
            assert np.abs(found[name] - stored[f"{model}/{name}"]).max() <= stored[f"{model}/{name}.atol"]
        assert f"{model}/classes" not in stored.files
        assert np.array_equal(found["classes"][:, 0], found["logits"].argmax(axis=1))


def test_a_picture(bundle: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.load(bundle / "goldens.npz")["pixels"][3]
    image.fromarray(pixels[:, :, 0]).save(tmp_path / "a.png")
    preprocessing = json.loads((bundle / "preprocessing.json").read_text())
    assert np.array_equal(runner.read_images(str(tmp_path / "a.png"), preprocessing)[0], pixels)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(Refused, match=r"b\.png cannot be read"):
        runner.read_images(str(tmp_path / "b.png"), preprocessing)


def test_what_cannot_be_run(written: Path, written_for_jetson: Path, bundle: Path) -> None:
    with pytest.raises(Refused, match="no model 'teacher'"):
        Runner(str(written), "teacher")
    with pytest.raises(Failed, match="has no NoSuchProvider"):
        Runner(str(written), provider="NoSuchProvider")
    with pytest.raises(Failed, match="has no engine yet"):
        Runner(str(written_for_jetson), runtime="tensorrt")
    (bundle / "models" / "student-int8" / "1" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(Failed, match=r"cannot load model\.onnx"):
        Runner(str(bundle))


def test_tensorrt_is_not_touched_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner.manifest, "compute_capability", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(Failed, match="there is no GPU here"):
        runner.TensorRtSession(str(tmp_path / "model.plan"), {})
