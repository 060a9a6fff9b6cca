"""`edgekd verify`: what passes, what does not, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edgekd.bundle import verify_bundle, verifying
from edgekd.cli import app
from edgekd.errors import BackendError, BundleError, ParityError, TargetError

Reseal = Callable[..., None]


def edgekd(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def change_goldens(root: Path, **changes: Any) -> None:
    with np.load(root / "goldens.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(root / "goldens.npz", **{**arrays, **{key.replace("__", "/"): value for key, value in changes.items()}})


def test_passes(written: Path) -> None:
    done = edgekd("verify", written)
    assert done.exit_code == 0, done.output
    assert "as the manifest lists them" in done.stdout
    assert "student-int8/logits: ONNX Runtime" in done.stdout and "16 goldens" in done.stdout


def test_files_alone(written: Path) -> None:
    record = verify_bundle(written, run=False)
    assert record["ok"] and record["models"] == []


def test_a_changed_file(bundle: Path) -> None:
    (bundle / "labels.json").write_text("[]")
    done = edgekd("verify", bundle)
    assert done.exit_code == 2 and "labels.json is not the file" in done.stderr
    with pytest.raises(BundleError, match=r"labels\.json"):
        verify_bundle(bundle)


def test_the_bundles_own_program_is_not_run(bundle: Path, reseal: Reseal, tmp_path: Path) -> None:
    """A forger's verify.py, listed in a forged manifest, has no say."""
    (bundle / "verify.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    reseal(bundle)
    verify_bundle(bundle, run=False)
    assert not (tmp_path / "ran").exists()


def test_goldens_that_are_not_reached(bundle: Path, reseal: Reseal) -> None:
    logits = np.load(bundle / "goldens.npz")["student-int8/logits"].copy()
    logits[7, 3] += 5
    change_goldens(bundle, **{"student-int8__logits": logits})
    reseal(bundle)
    done = edgekd("verify", bundle)
    assert done.exit_code == 3 and "student-int8/logits: an error of 5 on 16 golden images" in done.stderr
    with pytest.raises(ParityError):
        verify_bundle(bundle)
    assert verify_bundle(bundle, atol=6)["ok"]


def test_goldens_that_are_no_numbers(bundle: Path, reseal: Reseal) -> None:
    logits = np.load(bundle / "goldens.npz")["student-fp32/logits"].copy()
    logits[0, 0] = np.nan
    change_goldens(bundle, **{"student-fp32__logits": logits})
    reseal(bundle)
    with pytest.raises(ParityError, match="student-fp32/logits: an error of nan"):
        verify_bundle(bundle)


def test_another_gpu_by_its_target(written_for_jetson: Path) -> None:
    done = edgekd("verify", written_for_jetson, "--target", "rtx-4090")
    assert done.exit_code == 2 and "sm_87" in done.stderr and "sm_89" in done.stderr
    record = verify_bundle(written_for_jetson, target="jetson-agx-orin-64gb")
    assert record["gpu"] == "sm_87"
    assert all(model["stands_in"] for model in record["models"])
    assert "stands in for TensorRT" in edgekd("verify", written_for_jetson).stdout
    with pytest.raises(TargetError, match="has no GPU"):
        verify_bundle(written_for_jetson, target="x86-cpu")


def test_a_provider_that_is_not_there(written: Path) -> None:
    done = edgekd("verify", written, "--provider", "NoSuchProvider")
    assert done.exit_code == 3 and "NoSuchProvider" in done.stderr


def test_a_runtime_that_ends_its_process(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = tmp_path / "verify.py"
    crash.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(verifying, "VERIFY", crash)
    with pytest.raises(BackendError, match="exit code -11"):
        verify_bundle(written)


def test_from_the_shell(bundle: Path) -> None:
    """As on a device: no edgekd, the files of the bundle."""
    done = subprocess.run([sys.executable, "verify.py"], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0 and "goldens" in done.stdout
    (bundle / "models" / "student-int8" / "1" / "model.onnx").write_bytes(b"x")
    done = subprocess.run([sys.executable, "verify.py", "--json"], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 2 and "models/student-int8/1/model.onnx" in json.loads(done.stdout)["error"]
