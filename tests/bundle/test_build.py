"""build.sh and build.py with a stand-in for trtexec: which options it gets, and what is left of a failed build."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import build
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import manifest
from edgekd.bundle.recipe import recipe
from edgekd.profile.devices import load_device

MODEL = {
    "name": "student-int8",
    "scheme": "int8+fp16",
    "path": "models/student-int8/1/model.onnx",
    "engine": "models/student-int8/1/model.plan",
    "inputs": [{"name": "images", "dtype": "float32", "shape": [None, 3, 32, 32]}],
}


def graph(root: Path, batch: str | int = "batch", opset: int = 17) -> Path:
    """MODEL's graph, which quantizes its input and halves the result."""
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (batch, 3, 32, 32)) for name in ("images", "logits")]
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["quantized"]),
        helper.make_node("DequantizeLinear", ["quantized", "scale", "zero"], ["restored"]),
        helper.make_node("Cast", ["restored"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], ["logits"], to=TensorProto.FLOAT),
    ]
    constants = {"scale": np.float32(0.1), "zero": np.int8(0)}
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    path = root / str(MODEL["path"])
    path.parent.mkdir(parents=True)
    made = helper.make_graph(nodes, "g", io[:1], io[1:], held)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)]), path)
    return root


def commands(root: Path, target: str) -> dict[str, Any]:
    engine: dict[str, Any] = recipe(root, [MODEL], load_device(target), 32)["engines"]["student-int8"]
    return engine


# Simulated: prints a banner as trtexec does, and writes 13 bytes where an engine is asked for.
TRTEXEC = """#!/bin/sh
echo '&&&& RUNNING TensorRT.trtexec [TensorRT v{banner}] # trtexec'
for word in "$@"; do
    case $word in
        --saveEngine=*) [ {fails} = 1 ] && exit 1; printf 'ftrt simulate' > "${{word#--saveEngine=}}" ;;
    esac
done
"""


def simulated(path: Path, banner: str, fails: bool = False) -> Path:
    path.write_text(TRTEXEC.format(banner=banner, fails=int(fails)))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("8205", "8.2.5"),
        ("8502", "8.5.2"),
        ("8602", "8.6.2"),
        ("100300", "10.3.0"),
        ("101602", "10.16.2"),
        ("110400", "11.4.0"),
        ("11.1.0.106", "11.1.0"),
    ],
)
def test_version_of_the_banner(tmp_path: Path, banner: str, version: str) -> None:
    assert build.tensorrt_version(str(simulated(tmp_path / "trtexec", banner))) == version


def test_no_version(tmp_path: Path) -> None:
    (tmp_path / "trtexec").write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(manifest.Failed, match="does not run"):
        build.tensorrt_version(str(tmp_path / "trtexec"))
    (tmp_path / "trtexec").chmod(0o755)
    with pytest.raises(manifest.Failed, match="does not say its version"):
        build.tensorrt_version(str(tmp_path / "trtexec"))


@pytest.mark.parametrize(
    ("target", "version", "precision", "last"),
    [
        ("jetson-orin-nano", "8.5.2", ["--int8", "--fp16"], "--buildOnly"),
        ("jetson-orin-nano", "8.6.2", ["--int8", "--fp16"], "--skipInference"),
        ("jetson-orin-nano", "10.3.0", ["--stronglyTyped"], "--skipInference"),
        ("rtx-4090", "11.4.0", [], "--skipInference"),
    ],
)
def test_options_by_version(tmp_path: Path, target: str, version: str, precision: list[str], last: str) -> None:
    assert build.command(commands(graph(tmp_path), target), version) == [
        "--onnx=models/student-int8/1/model.onnx",
        "--saveEngine=models/student-int8/1/model.plan",
        *precision,
        "--minShapes=images:1x3x32x32",
        "--optShapes=images:1x3x32x32",
        "--maxShapes=images:32x3x32x32",
        last,
    ]


def test_a_version_that_the_target_never_has(tmp_path: Path) -> None:
    engine = commands(graph(tmp_path), "jetson-orin-nano")
    assert [row["from"] for row in engine["commands"]] == ["8.4", "8.6", "10.0", "10.13"]
    with pytest.raises(manifest.Refused, match=r"no options for TensorRT 11\.4\.0"):
        build.command(engine, "11.4.0")


def test_a_version_that_does_not_parse_the_graph(tmp_path: Path) -> None:
    engine = commands(graph(tmp_path, opset=19), "jetson-orin-nano")
    with pytest.raises(manifest.Refused, match=r"has opset 19, and TensorRT 8\.4 parses up to 17"):
        build.command(engine, "8.5.2")
    assert "--stronglyTyped" in build.command(engine, "10.3.0")


def test_a_fixed_batch_has_no_shapes(tmp_path: Path) -> None:
    engine = commands(graph(tmp_path, batch=1), "rtx-4090")
    assert not [word for word in build.command(engine, "10.3.0") if "Shapes" in word]


def shell(root: Path, trtexec: Path, *arguments: str) -> Any:
    return subprocess.run(
        ["sh", "build.sh", *arguments],
        cwd=root,
        env={"PATH": "/usr/bin:/bin", "TRTEXEC": str(trtexec), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )


def test_from_the_shell(jetson: Path, tmp_path: Path) -> None:
    trtexec = simulated(tmp_path / "trtexec", "100300")
    done = shell(jetson, trtexec, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == [str(trtexec), "--onnx=models/student-int8/1/model.onnx"]
    done = shell(jetson, trtexec, "teacher")
    assert done.returncode == 2 and "no model 'teacher'" in done.stderr
    done = shell(jetson, simulated(tmp_path / "newer", "110400"))
    assert done.returncode == 2 and "TensorRT 8.5.2 to 10.16, and 11.4.0 is here" in done.stderr
    (jetson / "labels.json").write_text("[]")
    done = shell(jetson, trtexec)
    assert done.returncode == 2 and "labels.json" in done.stderr
    assert not list(jetson.rglob("*.plan*"))


def test_a_processors_bundle_has_nothing_to_build(written: Path) -> None:
    assert not (written / "build.sh").exists() and not (written / "build.json").exists()


@pytest.fixture
def here(jetson: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """build.py as if it ran in the bundle, beside a simulated GPU of sm_87."""
    monkeypatch.setattr(build, "HERE", str(jetson))
    monkeypatch.setattr(manifest, "compute_capability", lambda: "8.7")
    return jetson


def test_build_leaves_engine_record_and_log(here: Path, tmp_path: Path) -> None:
    trtexec = simulated(tmp_path / "trtexec", "100300")
    assert build.main(["--trtexec", str(trtexec)]) == 0
    folder = here / "models" / "student-int8" / "1"
    assert {file.name for file in folder.iterdir()} == {
        f"model.{end}" for end in ("onnx", "plan", "plan.json", "plan.log")
    }
    record = json.loads((folder / "model.plan.json").read_text())
    assert (
        record["tensorrt"] == "10.3.0"
        and record["compute_capability"] == "8.7"
        and "--skipInference" in record["options"]
    )
    held = manifest.check(str(here))
    model = next(m for m in held["models"] if m["name"] == "student-int8")
    assert manifest.check_engine(str(here), held, model, "8.7")


def test_a_failed_build_leaves_its_log_alone(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--trtexec", str(simulated(tmp_path / "good", "100300"))]) == 0
    assert build.main(["--trtexec", str(simulated(tmp_path / "bad", "100300", fails=True))]) == 3
    assert "trtexec ended with exit code 1 on student-int8" in capsys.readouterr().err
    assert {file.name for file in (here / "models" / "student-int8" / "1").iterdir()} == {
        "model.onnx",
        "model.plan.log",
    }


@pytest.mark.parametrize(("found", "code", "words"), [("7.2", 2, ["sm_87", "sm_72"]), (None, 3, ["no GPU here"])])
def test_not_on_another_device(
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: str | None,
    code: int,
    words: list[str],
) -> None:
    monkeypatch.setattr(manifest, "compute_capability", lambda: found)
    assert build.main(["--trtexec", str(simulated(tmp_path / "trtexec", "100300"))]) == code
    error = capsys.readouterr().err
    assert all(word in error for word in words)
    assert not list(here.rglob("*.plan*"))


def test_the_script_is_posix() -> None:
    script = Path(build.__file__).with_name("build.sh")
    checker = shutil.which("dash") or shutil.which("sh")
    assert checker is not None and subprocess.run([checker, "-n", script]).returncode == 0
    assert script.read_text().startswith("#!/bin/sh\n") and "[[" not in script.read_text()
