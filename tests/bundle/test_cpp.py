"""The C++ runner, compiled here: the golden outputs to 1e-4, and the time beside the Python runner's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytestmark = pytest.mark.slow

ROOT = os.environ.get("ONNXRUNTIME_ROOT", "")
HEADERS = "ONNXRUNTIME_ROOT names no folder with ONNX Runtime's include/onnxruntime_cxx_api.h: unpack a release of it"


@pytest.fixture(scope="module")
def binary(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Headers of ONNXRUNTIME_ROOT, the library of the Python package."""
    if not (Path(ROOT) / "include" / "onnxruntime_cxx_api.h").is_file():
        pytest.skip(HEADERS)
    for program in ("cmake", "c++"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    root = tmp_path_factory.mktemp("onnxruntime")
    (root / "include").symlink_to(Path(ROOT) / "include")
    (root / "lib").mkdir()
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(library)
    out = tmp_path_factory.mktemp("build")
    for command in (
        ["cmake", "-S", str(written / "cpp"), "-B", str(out), f"-DONNXRUNTIME_ROOT={root}"],
        ["cmake", "--build", str(out)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stdout + done.stderr
    return out / "runner"


def run(binary: Path, *arguments: object) -> tuple[int, Any]:
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


@pytest.mark.parametrize("model", ["student-fp32", "student-int8"])
def test_goldens(binary: Path, written: Path, model: str) -> None:
    code, record = run(binary, written, model, "--threads", 1)
    assert code == 0 and record["ok"] and record["runtime"] == f"ONNX Runtime {onnxruntime.__version__}"
    assert record["outputs"]["logits"]["max_abs_error"] <= 1e-4 and record["outputs"]["logits"]["n"] == 16
    stored = np.load(written / "goldens.npz")
    assert record["outputs"]["logits"]["atol"] == pytest.approx(float(stored[f"{model}/logits.atol"]), rel=1e-6)


def test_goldens_of_graphs_that_prepare_pixels_themselves(binary: Path, written_for_pixels: Path) -> None:
    code, record = run(binary, written_for_pixels, "student-int8", "--threads", 1)
    assert code == 0 and record["ok"] and set(record["outputs"]) == {"logits", "probabilities", "scores"}
    assert all(found["max_abs_error"] <= 1e-4 for found in record["outputs"].values())


def test_goldens_that_are_not_reached(binary: Path, bundle: Path) -> None:
    with np.load(bundle / "goldens.npz") as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    arrays["student-int8/logits"][15, 9] += 3
    np.savez(bundle / "goldens.npz", **arrays)
    code, record = run(binary, bundle, "student-int8", "--threads", 1)
    assert code == 3 and not record["ok"] and record["outputs"]["logits"]["max_abs_error"] == pytest.approx(3, abs=1e-3)


def test_what_cannot_be_run(binary: Path, bundle: Path) -> None:
    assert run(binary, bundle)[0] == 2
    assert run(binary, bundle, "student-int8", "--nonsense")[0] == 2
    assert run(binary, bundle, "student-int8", "--threads", "many")[0] == 2
    code, words = run(binary, bundle, "student-int8", "--tensorrt")
    assert code == 2 and "without TensorRT" in words
    assert run(binary, bundle, "teacher")[0] == 3
    goldens = (bundle / "goldens.npz").read_bytes()
    for broken in (b"", goldens[:300], goldens[200:]):
        (bundle / "goldens.npz").write_bytes(broken)
        code, words = run(binary, bundle, "student-int8")
        assert code == 3 and words.startswith("error: ")


def test_time_beside_python(binary: Path, written: Path) -> None:
    code, cpp = run(binary, written, "student-int8", "--threads", 1, "--runs", 500)
    done = subprocess.run(
        [sys.executable, written / "runner.py", "--model", "student-int8", "--threads", "1", "--time", "500"],
        capture_output=True,
        text=True,
    )
    python = json.loads(done.stdout)
    assert code == 0 and cpp["n"] == python["n"] == 500
    print(f"p50 at batch 1: C++ {cpp['p50_ms']:.4f} ms, Python {python['p50_ms']:.4f} ms")
    assert cpp["p50_ms"] < 1.2 * python["p50_ms"]  # both spend their time in one library
