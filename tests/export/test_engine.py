"""`edgekd build`: what is refused before a runtime is touched, and engines of builders that are simulated."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from engines import SIMULATED_TENSORRT, SIMULATED_TRTEXEC, plan, write_halves, write_onnx
from onnx import TensorProto, helper
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.errors import BackendError, ConfigError, ModelError, TargetError
from edgekd.export.engine import build_engine, engine_commands
from edgekd.export.tensorrt import BUILDERS, BuildOptions, choose, parse_batch, python, read_graph, trtexec
from edgekd.profile import driver
from edgekd.profile.devices import load_device

ONE = BuildOptions(batch=(1, 1, 1))


@pytest.fixture(autouse=True)
def no_builder(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine without any; those that a test puts there are found."""

    for cached in (python._version, trtexec._found):
        cached.cache_clear()
        request.addfinalizer(cached.cache_clear)
    monkeypatch.setattr(trtexec, "PLACE", Path("nowhere/trtexec"))
    monkeypatch.setattr(trtexec.shutil, "which", lambda name: None)
    monkeypatch.setattr(python, "find_spec", lambda module: None)
    monkeypatch.setattr(driver, "probe", lambda: driver.Driver("12.6", (87, 89)))  # simulated GPUs
    monkeypatch.setenv("EDGEKD_CACHE", str(request.getfixturevalue("tmp_path") / "cache"))


@pytest.fixture
def simulated_trtexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(*version: int, behaviour: str = "build") -> None:
        file = tmp_path / "trtexec"
        file.write_text(SIMULATED_TRTEXEC.format(python=sys.executable, version=version, behaviour=behaviour))
        file.chmod(0o755)
        monkeypatch.setattr(trtexec.shutil, "which", lambda name: str(file))

    return put


@pytest.fixture
def simulated_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(version: str, behaviour: str = "build") -> None:
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages" / "tensorrt.py").write_text(SIMULATED_TENSORRT)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
        monkeypatch.setenv("SIMULATED_VERSION", version)
        monkeypatch.setenv("SIMULATED", behaviour)
        monkeypatch.setattr(python, "find_spec", lambda module: True if module == "tensorrt" else None)

    return put


def test_trtexec_builds(simulated_trtexec: Callable[..., None], tmp_path: Path) -> None:
    simulated_trtexec(10, 3, 0)
    model = write_onnx(tmp_path / "net.onnx")
    record = build_engine(model, "jetson-orin-nano", tmp_path / "out", ONE)
    assert (record["builder"], record["backend"], record["versions"]) == (
        "trtexec",
        "tensorrt",
        {"tensorrt": "10.3.0.1"},
    )
    assert record["bytes"] == 100 and record["figures"] == {"build_seconds": 1.5} and record["seconds"] > 0
    assert record["device"] == {"target": "jetson-orin-nano", "compute_capability": "87"}
    assert "&&&& PASSED" in Path(record["build_log"]).read_text()
    stored = json.loads((tmp_path / "out" / "build" / "build.json").read_text())
    assert stored["path"] == "net.engine" and str(tmp_path) not in json.dumps(stored)
    before = Path(record["path"]).stat().st_mtime_ns
    assert build_engine(model, "jetson-orin-nano", tmp_path / "out", ONE) == record
    assert Path(record["path"]).stat().st_mtime_ns == before  # it was there
    build_engine(model, "jetson-orin-nano", tmp_path / "out", BuildOptions(batch=(1, 2, 4)))
    assert Path(record["path"]).stat().st_mtime_ns != before


def test_a_crash_is_an_error_with_the_last_words(simulated_trtexec: Callable[..., None], tmp_path: Path) -> None:
    simulated_trtexec(8, 6, 1, behaviour="crash")
    model = write_onnx(tmp_path / "net.onnx", opset=17)
    with pytest.raises(BackendError, match=r"trtexec 8.6.1 on net.onnx died of signal 11: .*Local timing cache in use"):
        build_engine(model, "jetson-orin-nano", tmp_path / "out", ONE)
    assert not (tmp_path / "out" / "build").exists()


def test_a_refusal_is_an_error_with_nvidias_words(simulated_trtexec: Callable[..., None], tmp_path: Path) -> None:
    simulated_trtexec(8, 4, 1, behaviour="refuse")
    model = write_onnx(tmp_path / "net.onnx", opset=17)
    with pytest.raises(BackendError, match=r"built nothing: Error\[3\]: conv1.weight: invalid weights type of Int8"):
        build_engine(model, "jetson-orin-nano", tmp_path / "out", ONE)


@pytest.mark.parametrize(
    ("version", "typed", "network", "flags"),
    [("10.13.0.35", True, 2, None), ("10.13.0.35", False, 0, None), ("11.4.0.106", True, 0, None)],
)
def test_tensorrts_python_builds(
    version: str, typed: bool, network: int, flags: Any, simulated_tensorrt: Callable[..., None], tmp_path: Path
) -> None:
    simulated_tensorrt(version)
    model = (write_halves if typed else write_onnx)(tmp_path / "net.onnx")
    for cached in (0, len(b"timings")):
        record = build_engine(model, "rtx-4090", tmp_path / "out", BuildOptions((1, 2, 4), workspace=64), force=True)
        asked = json.loads(record["warnings"][0].removeprefix("simulated "))
        assert asked["network"] == network and asked.get("flags") == flags
        assert asked["workspace"] == 64 << 20
        assert asked["shapes"] == {"images": [[1, 3, 4, 4], [2, 3, 4, 4], [4, 3, 4, 4]]}
        assert asked["timing_cache"] == cached
    assert (record["builder"], record["versions"]) == ("tensorrt", {"tensorrt": version})
    assert "left out" not in Path(record["build_log"]).read_text()


def test_tensorrts_python_on_a_dla_without_strong_types(
    simulated_tensorrt: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated_tensorrt("10.3.0.30")
    words = BUILDERS["tensorrt"]._words  # type: ignore[attr-defined]
    request = _request(write_halves(tmp_path / "net.onnx"), dla=0, batch=(1, 1, 1))
    assert words(request, tmp_path / "x", 10)["flags"] == ["GPU_FALLBACK", "FP16"]
    assert not words(request, tmp_path / "x", 10)["strongly_typed"]
    assert words(request, tmp_path / "x", 11)["flags"] == ["GPU_FALLBACK"]


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [("crash", "died of signal 6: .*simulated"), ("refuse", "built nothing: Error Code 10: could not find any")],
)
def test_tensorrts_python_fails(
    behaviour: str, message: str, simulated_tensorrt: Callable[..., None], tmp_path: Path
) -> None:
    simulated_tensorrt("11.4.0.106", behaviour)
    with pytest.raises(BackendError, match=f"tensorrt 11.4.0.106 on net.onnx {message}"):
        build_engine(write_onnx(tmp_path / "net.onnx"), "rtx-4090", tmp_path / "out", ONE)


def _request(path: Path, **options: Any) -> Any:
    from edgekd.export.tensorrt import BuildRequest

    return BuildRequest(graph=read_graph(path), compute_capability=87, **options)


def test_nothing_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        TargetError, match=r"tensorrt: .* is not installed; trtexec: .* PATH.*; tensorrt-rtx: "
    ) as raised:
        choose(load_device("rtx-4090"))
    assert "--dry-run" in raised.value.fix
    with pytest.raises(ConfigError, match="--builder: unknown 'nvcc'"):
        choose(load_device("rtx-4090"), "nvcc")


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "no NVIDIA GPU answers here"),
        (driver.Driver("13.0", ()), "no NVIDIA GPU answers here"),
        (driver.Driver("13.0", (90,)), "the GPU here is sm_90, and it builds for the one it runs on, not for sm_89"),
    ],
)
def test_another_gpu(
    found: Any, why: str, simulated_trtexec: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated_trtexec(10, 13, 0)
    monkeypatch.setattr(driver, "probe", lambda: found)
    with pytest.raises(TargetError, match=f"trtexec: {why}"):
        choose(load_device("rtx-4090"), "trtexec")


def test_a_driver_that_does_not_answer(simulated_trtexec: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise BackendError("the NVIDIA driver gives error 999 in cuInit", "Reinstall the NVIDIA driver.")

    simulated_trtexec(10, 13, 0)
    monkeypatch.setattr(driver, "probe", broken)
    assert trtexec.Trtexec().unable(load_device("rtx-4090")) == "the NVIDIA driver gives error 999 in cuInit"


def with_formats(path: Path, kind: int) -> Path:
    """A graph whose Q/DQ have zero points of element type `kind`."""
    model = onnx.load(write_onnx(path, opset=19))
    model.graph.initializer.append(helper.make_tensor("s", TensorProto.FLOAT, [], [0.1]))
    model.graph.initializer.append(helper.make_tensor("z", kind, [], b"\0", raw=True))
    q = helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"])
    dq = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"])
    model.graph.node[0].input[0] = "dq"
    model.graph.node.insert(0, dq)
    model.graph.node.insert(0, q)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("make", "target", "options", "error", "message"),
    [
        (lambda p: write_onnx(p, domain="com.microsoft"), "rtx-4090", ONE, ModelError, "FusedRelu of com.microsoft"),
        (write_onnx, "rtx-4090", BuildOptions(), ConfigError, "no optimization profile says which"),
        (
            lambda p: write_onnx(p, shape=("batch", 3, "height", "width")), "rtx-4090", ONE, ModelError,
            "has a dynamic side besides the batch: images [?]x3x[?]x[?]",
        ),
        (lambda p: write_onnx(p, shape=(1, 3, 4, 4)), "rtx-4090", ONE, ConfigError, "the batch of .* is fixed"),
        (lambda p: with_formats(p, TensorProto.FLOAT8E4M3FN), "rtx-3060", ONE, TargetError, "has fp8, which rtx-3060"),
        (lambda p: with_formats(p, TensorProto.INT8), "jetson-nano", ONE, TargetError, "has int8, which jetson-nano"),
        (write_onnx, "x86-cpu", ONE, TargetError, "target x86-cpu runs onnxruntime-cpu"),
        (
            write_onnx, "jetson-orin-nano", BuildOptions((1, 1, 1), hardware="ampere+"), TargetError,
            "Jetsons have no hardware-compatible engines",
        ),
        (write_onnx, "jetson-orin-nano", BuildOptions((1, 1, 1), dla=0), TargetError, "has no DLA cores"),
        (write_onnx, "jetson-orin-nx-16gb", BuildOptions((1, 1, 1), dla=2), TargetError, "has 2 DLA cores"),
        (
            lambda p: with_formats(p, TensorProto.INT8), "jetson-orin-nx-16gb", BuildOptions((1, 1, 1), dla=0),
            ModelError, "has int8 Q/DQ, which a DLA does not take",
        ),
        (
            write_onnx, "jetson-orin-nx-16gb", BuildOptions((1, 2, 4), dla=0), ConfigError,
            "--batch 1,2,4: a DLA takes one size",
        ),
        (lambda p: plan(p, (8, 5, 2, 2)), "rtx-4090", ONE, ModelError, "is an engine of tensorrt 8.5.2.2"),
        (lambda p: p.write_bytes(plan(p).read_bytes()[:60]) and p, "rtx-4090", ONE, ModelError, "100 bytes, .* has 60"),
        (lambda p: p.write_text("no") and p, "rtx-4090", ONE, ModelError, "is not an ONNX file"),
        (lambda p: p, "rtx-4090", ONE, ModelError, "does not exist"),
    ],
)  # fmt: skip
def test_refused_before_a_runtime_is_touched(
    make: Any, target: str, options: BuildOptions, error: Any, message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    def touched(*_: Any) -> Any:
        raise AssertionError("a runtime was touched")

    monkeypatch.setattr(python, "find_spec", touched)
    monkeypatch.setattr(trtexec.shutil, "which", touched)
    with pytest.raises(error, match=message):
        build_engine(make(tmp_path / "net.onnx"), target, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_tensors_that_are_missing(tmp_path: Path) -> None:
    from edgekd.export.onnx import save

    save(onnx.load(write_halves(tmp_path / "net.onnx")), tmp_path / "net.onnx", limit=0)
    model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "gone.data"
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="keeps tensors in gone.data, which is not beside it"):
        read_graph(tmp_path / "net.onnx")


@pytest.mark.parametrize("text", ["", "a", "1,2", "0,1,2", "4,2,8", "1,2,3,4", "-1", "1.5"])
def test_a_batch_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--batch"):
        parse_batch(text)


def test_batches() -> None:
    assert (parse_batch("1,8,32"), parse_batch("4"), parse_batch(None)) == ((1, 8, 32), (4, 4, 4), None)


def test_commands_for_every_tensorrt_of_a_board(tmp_path: Path) -> None:
    records = engine_commands(write_onnx(tmp_path / "net.onnx"), "jetson-orin-nano", ONE)
    assert [record["tensorrt"] for record in records] == ["8.5.2", "8.6.2", "10.3.0", "10.16"]
    assert "--opset 17" in records[0]["refused"]
    assert records[2]["build"][1:3] == ["--onnx=net.onnx", "--saveEngine=net.engine"]
    assert records[2]["time"][1] == "--loadEngine=net.engine"
    assert engine_commands(tmp_path / "net.onnx", "jetson-agx-orin-64gb", ONE)[-1]["tensorrt"] == "11.4.1"
    assert [r["tensorrt"] for r in engine_commands(tmp_path / "net.onnx", "rtx-4090", ONE)] == ["10.16", "11.4"]


def test_the_command_line(simulated_trtexec: Callable[..., None], tmp_path: Path) -> None:
    simulated_trtexec(10, 3, 0)
    model = write_onnx(tmp_path / "net.onnx")
    words = ["build", str(model), "--target", "jetson-orin-nano", "--batch", "1"]
    dry = CliRunner().invoke(app, [*words, "--dry-run"])
    assert dry.exit_code == 0 and "# TensorRT 10.3.0\n" in dry.stdout and "--skipInference" in dry.stdout
    assert len(json.loads(CliRunner().invoke(app, [*words, "--dry-run", "--json"]).stdout)) == 4
    assert CliRunner().invoke(app, words).exit_code == 2  # --out is missing
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--builder", "trtexec"])
    assert done.exit_code == 0, done.output
    assert f"{tmp_path}/out/build/net.engine\nfor sm_87 by trtexec, loads in tensorrt 10.3.0.1\n" in done.stdout
    broken = CliRunner().invoke(app, [*words[:-2], "--out", str(tmp_path / "out")])
    assert broken.exit_code == 2 and "--batch MIN,OPT,MAX" in broken.output
