"""Simulated Jetsons, JetPack 4 to 7: what they are, engines built and timed there, power, throttling, settings."""

from __future__ import annotations

from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import onnx
import pytest
from boards import (
    AGX_ORIN_JP5,
    AGX_ORIN_JP7,
    NANO_JP4,
    ORIN_NANO_JP6,
    THOR_JP7,
    XAVIER_NX_JP4,
    Here,
    Simulated,
    throttled,
    write,
)
from markupsafe import escape
from onnx import TensorProto, helper, numpy_helper

from edgekd.artifacts import OnnxModel
from edgekd.errors import BackendError, ModelError, RuntimeMissingError, TargetError
from edgekd.profile import latency, measure_all
from edgekd.profile.board import find_profile
from edgekd.profile.devices import load_device
from edgekd.profile.hosts import power, remote
from edgekd.report.profile import write_page

pytestmark = pytest.mark.simulated

BOARDS = {
    "jetson-nano": (NANO_JP4, "4.6.1 to 4.6.6", "10.2.300", "8.2.1", "POM_5V_IN"),
    "jetson-xavier-nx": (XAVIER_NX_JP4, "4.6", "10.2.300", "8.0.1", "VDD_IN"),
    "jetson-agx-orin-64gb": (AGX_ORIN_JP5, "5.1.1", "11.4.19", "8.5.2", "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"),
    "jetson-orin-nano-super": (ORIN_NANO_JP6, "6.2", "12.6.11", "10.3.0", "VDD_IN"),
    "jetson-thor-t5000": (THOR_JP7, "7.0", "13.0.0", "10.13.0", "VIN"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """A convolution, opset 13: TensorRT parses it since 8.0."""
    path = tmp_path_factory.mktemp("model") / "student-fp32.onnx"
    kernel = np.random.default_rng(0).standard_normal((4, 3, 3, 3), np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "student",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return OnnxModel(str(path), "onnx-fp32", "fp32", 13, (3, 8, 8))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "IDLE_S", 0.2)
    monkeypatch.setattr(remote, "ENERGY_S", 1.0)


def place(board: Simulated, tmp_path: Path, **options: Any) -> Here:
    return Here(write(board, tmp_path / "root"), tmp_path / "cache", **options)


def measured(here: Here, name: str, model: OnnxModel, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    monkeypatch.setattr(latency, "reach", lambda device: here)
    (report,) = measure_all([model], load_device(name), runs=20, warmup=20, **options)
    return report


@pytest.mark.parametrize("name", BOARDS)
def test_what_a_board_is(name: str, tmp_path: Path) -> None:
    simulated, jetpack, cuda, tensorrt, _ = BOARDS[name]
    board = place(simulated, tmp_path).probe()
    assert find_profile(board, "there").name == name
    found = board.summary()
    assert (found["jetpack"], found["cuda"], found["tensorrt"]) == (jetpack, cuda, tensorrt)
    assert found["power_mode"] == simulated.mode and board.power_modes == simulated.modes
    assert board.model == simulated.model and board.machine == "aarch64" and board.isa == ("dotprod", "neon")
    assert not (tmp_path / "cache").exists()  # asking leaves nothing there


@pytest.mark.parametrize("name", BOARDS)
def test_a_profile_of_a_board(name: str, tmp_path: Path, model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated, _, _, tensorrt, rail = BOARDS[name]
    report = measured(place(simulated, tmp_path), name, model, monkeypatch, batches=[2])
    conditions = report.conditions
    assert conditions["simulated"] == remote.SIMULATED and conditions["provider"] == f"TensorRT {tensorrt}"
    assert report.target == name and report.batch == 2 and len(report.samples_ns) == 20
    assert max(report.samples_ns) < 2_000_000  # 8.x puts its warm-up runs of 9 ms into the file
    assert conditions["outputs"]["cosine"] > 0.999999
    assert "are copied" in conditions["transfers"] and "trtexec" in conditions["clock"]
    build = conditions["engine_build"]
    assert build["cached"] is False and build["build_seconds"] == 99.5012
    assert build["arguments"][0] == "--onnx=model.onnx" and "--optShapes=images:2x3x8x8" in build["arguments"]
    assert ("--buildOnly" in build["arguments"]) == (tensorrt < "8.6" and not tensorrt.startswith("10"))
    energy = conditions["energy"]
    assert energy["rail"] == rail and energy["energy_above_idle_mj"] == 0.0  # idle and at work it says the same
    assert energy["energy_mj"] == pytest.approx(energy["power_mw"] * 1.66e-3 / 2, rel=0.1)
    assert conditions["tegrastats"]["samples"] > 0 and conditions["tegrastats"]["temperature_c"]
    write_page(tmp_path / "profile.html", report.artifact, [report.summary()])
    page = (tmp_path / "profile.html").read_text()
    assert f'<p class="bad">Simulated: {escape(remote.SIMULATED)}' in page and 'tag bad">simulated' in page
    assert "Energy of an image" in page and rail in page
    kept = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert kept == {"lock", "student-fp32.onnx", "engine.plan", "engine.log"}


def test_an_engine_is_built_once(tmp_path: Path, model: OnnxModel) -> None:
    here = place(ORIN_NANO_JP6, tmp_path)
    for cached in (False, True):
        with here.worker(load_device("jetson-orin-nano-super"), 1) as worker:
            assert worker.add("0", model, 1)[1]["engine_build"]["cached"] is cached
    (tmp_path / "root/bin/trtexec").write_text((tmp_path / "root/bin/trtexec").read_text().replace("100300", "100301"))
    with here.worker(load_device("jetson-orin-nano-super"), 1) as worker:
        assert worker.add("0", model, 1)[1]["engine_build"]["cached"] is False  # of another TensorRT


def test_what_the_timing_asks_of_trtexec(tmp_path: Path, model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(place(ORIN_NANO_JP6, tmp_path), "jetson-orin-nano-super", model, monkeypatch)
    asked = (tmp_path / "root/trtexec.txt").read_text().splitlines()
    timed = [line for line in asked if "--iterations=20 " in line]
    assert len(timed) == 1 and "--warmUp=200 --duration=0" in timed[0] and "--loadInputs=images:" in timed[0]
    assert [line for line in asked if "--exportOutput" in line] and "--timingCacheFile=" in " ".join(asked)


def test_throttling_is_said(tmp_path: Path, model: OnnxModel) -> None:
    here = place(ORIN_NANO_JP6, tmp_path)
    lines = throttled(ORIN_NANO_JP6, "14%@[420]", "97%@[1020] to 97%@[612]")
    (tmp_path / "root/tegrastats.txt").write_text("".join(f"{line}\n" for line in lines))
    with here.worker(load_device("jetson-orin-nano-super"), 1) as worker:
        worker.add("0", model, 1)
        worker.watch()
        worker.time("0", 1, 20, 2)
        (tmp_path / "root/sys/class/hwmon/hwmon3/oc3_event_cnt").write_text("41\n")
        sleep(0.5)
        seen = worker.watched()
    assert seen["throttle_events"] == {"oc1": 0, "oc3": 4}
    text = " ".join(seen["warnings"])
    assert "the GPU's clock fell from 1020 to 612 MHz during the run, at up to 45.5 °C" in text
    assert "throttled: 4 events of oc3" in text and "clock was free to move" in text


def test_settings_are_changed_only_when_asked_and_put_back(
    tmp_path: Path, model: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place(ORIN_NANO_JP6, tmp_path, set_power_mode="MAXN_SUPER", lock_clocks=True)
    report = measured(here, "jetson-orin-nano-super", model, monkeypatch)
    assert report.conditions["board"]["power_mode"] == "MAXN_SUPER"
    assert (tmp_path / "root/mode").read_text().strip() == "25W"
    assert (tmp_path / "root/restored").read_text() == "stored\n"
    calls = [line.split(" /")[0] for line in (tmp_path / "root/calls").read_text().splitlines()]
    assert calls == [
        "nvpmodel -m 2",
        "jetson_clocks --store",
        "jetson_clocks",
        "jetson_clocks --restore",
        "nvpmodel -m 1",
    ]


def test_without_asking_nothing_is_changed(tmp_path: Path, model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(place(THOR_JP7, tmp_path), "jetson-thor-t5000", model, monkeypatch)
    assert not (tmp_path / "root/calls").exists()


@pytest.mark.parametrize(
    ("behaviour", "mode", "kind", "text"),
    [
        ("", "50W", TargetError, "no mode '50W'(?s:.*)Its modes: 15W, 25W, MAXN_SUPER, 7W"),
        ("nosudo", "7W", BackendError, "refuses sudo -n nvpmodel -m 3: sudo: a password is required"),
    ],
)
def test_a_power_mode_that_cannot_be_set(
    behaviour: str, mode: str, kind: type[Exception], text: str, tmp_path: Path
) -> None:
    here = place(ORIN_NANO_JP6, tmp_path, set_power_mode=mode)
    (tmp_path / "root/behaviour").write_text(behaviour)
    with pytest.raises(kind, match=text):
        here.worker(load_device("jetson-orin-nano-super"), 1)
    assert (tmp_path / "root/mode").read_text().strip() == "25W"


def test_a_build_that_fails(tmp_path: Path, model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place(AGX_ORIN_JP5, tmp_path)
    (tmp_path / "root/behaviour").write_text("refuse")
    with pytest.raises(BackendError, match=r"trtexec 8.5.2 on the device built nothing .* While parsing node number 0"):
        measured(here, "jetson-agx-orin-64gb", model, monkeypatch)


def test_an_opset_that_the_device_does_not_parse(
    tmp_path: Path, models: list[OnnxModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="opset 18, and TensorRT 8.2.1 parses up to 13"):
        measured(place(NANO_JP4, tmp_path), "jetson-nano", models[0], monkeypatch)


def test_no_trtexec(tmp_path: Path, model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place(ORIN_NANO_JP6, tmp_path)
    (tmp_path / "root/bin/trtexec").unlink()
    with pytest.raises(RuntimeMissingError, match="has no trtexec(?s:.*)nvidia-jetpack"):
        measured(here, "jetson-orin-nano-super", model, monkeypatch)


def test_another_board_than_named(tmp_path: Path) -> None:
    here = place(ORIN_NANO_JP6, tmp_path)
    with pytest.raises(TargetError, match="target jetson-nano, and .* is NVIDIA Jetson Orin Nano Engineering"):
        here.worker(load_device("jetson-nano"), 1)


def test_which_profile_a_board_has(tmp_path: Path) -> None:
    def name(**changes: Any) -> str:
        words = {**vars(ORIN_NANO_JP6), **changes}
        return find_profile(place(Simulated(**words), tmp_path).probe(), "there").name

    assert name(memory_kb=3_400_000, modes={"10W": 0}) == "jetson-orin-nano-4gb"
    assert name(modes={"15W": 0, "7W": 1}) == "jetson-orin-nano"
    assert name(model="NVIDIA Orin NX Developer Kit", memory_kb=15_600_000) == "jetson-orin-nx-16gb"
    assert name(model="Jetson-AGX", memory_kb=32_000_000, modes={}) == "jetson-agx-xavier"
    assert name(model="quill", memory_kb=8_000_000, modes={}) == "jetson-tx2"
    assert name(**vars(AGX_ORIN_JP7)) == "jetson-agx-orin-64gb"
    with pytest.raises(TargetError, match="calls itself 'Jetson of tomorrow': no profile is known"):
        name(model="Jetson of tomorrow")
