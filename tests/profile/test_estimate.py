"""Estimates are called that wherever they are shown, carry their error, and say where it is not known."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
from rich.console import Console
from small_graphs import graph, node
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.errors import TargetError
from edgekd.profile.devices import list_devices
from edgekd.profile.estimate import LatencyEstimate, estimate, read_network
from edgekd.profile.estimate.estimate import FILE, Fitted
from edgekd.profile.estimate.roofline import Constants, limits, times, work
from edgekd.report.terminal import latency_table

DEPTH = 12


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve 3x3 convolutions of 64 channels on 32 x 32 pixels."""
    nodes = [
        node("Conv", f"{'x' if i == 0 else f'r{i - 1}'} {'first' if i == 0 else 'w'}", f"c{i}", pads=[1] * 4)
        for i in range(DEPTH)
    ]
    nodes = [
        n for i, conv in enumerate(nodes) for n in (conv, node("Relu", f"c{i}", "y" if i == DEPTH - 1 else f"r{i}"))
    ]
    file = tmp_path_factory.mktemp("estimate") / "net.onnx"
    onnx.save(graph(nodes, {"first": (64, 3, 3, 3), "w": (64, 64, 3, 3)}, image=("batch", 3, 32, 32)), file)
    return file


def test_the_shipped_constants_are_physical() -> None:
    fitted = Fitted.read()
    shares = asdict(fitted.constants)
    for name in ("tensor", "plain", "grouped", "bandwidth"):
        assert 0.1 < shares[name] <= 1, name
    assert 1 < shares["launch_us"] < 20 and 1 < fitted.factor < 4 and fitted.coverage == 0.8
    assert len(fitted.devices) >= 8 and fitted.ranges["batch"] == [1, 1]
    assert json.loads(FILE.read_text())["sources"] == list(fitted.sources)


def test_an_estimate_is_the_sum_of_its_kernels_within_its_band(path: Path) -> None:
    found = estimate(path, "jetson-orin-nano", precision="fp16")
    fitted = Fitted.read()
    assert found.outside == () and found.low_ms is not None and found.high_ms is not None
    assert found.ms == pytest.approx(sum(kernel["ms"] for kernel in found.kernels))
    assert found.high_ms / found.ms == pytest.approx(fitted.factor) == found.ms / found.low_ms
    assert len(found.kernels) == DEPTH and {k["bound"] for k in found.kernels} <= {"arithmetic", "memory", "launch"}


def test_faster_devices_and_formats_are_faster(path: Path) -> None:
    def ms(target: str, precision: str) -> float:
        return estimate(path, target, precision=precision).ms

    assert ms("jetson-orin-nano", "fp32") > ms("jetson-orin-nano", "fp16") > ms("jetson-orin-nano", "int8")
    assert (
        ms("jetson-nano", "fp16")
        > ms("jetson-xavier-nx", "fp16")
        > ms("jetson-agx-orin-64gb", "fp16")
        > ms("rtx-3090", "fp16")
    )


@pytest.mark.parametrize(
    ("target", "batch", "reason"),
    [
        ("rtx-4090", 1, "no Ada Lovelace GPU was fitted"),
        ("jetson-orin-nano", 8, "batch: 8, and fitted were 1"),
    ],
)
def test_outside_of_what_was_fitted_there_is_no_band(path: Path, target: str, batch: int, reason: str) -> None:
    found = estimate(path, target, batch=batch, precision="fp16")
    assert (found.low_ms, found.high_ms) == (None, None)
    assert any(text.startswith(reason) for text in found.outside), found.outside
    assert found.row()["conditions"]["warnings"] == [
        f"outside of what the estimate was fitted on: {text}" for text in found.outside
    ]


def test_operators_and_sizes_that_were_not_fitted(tmp_path: Path) -> None:
    nodes = [node("LpNormalization", "x", "a"), node("Relu", "a", "y")]
    onnx.save(graph(nodes, {}, image=(1, 3, 4000, 4000)), tmp_path / "far.onnx")
    said = " | ".join(estimate(tmp_path / "far.onnx", "t4", precision="fp16").outside)
    for part in ("LpNormalization: 1, and fitted were at most 0", "pixels: 1.6e+07", "GMACs: 0", "kernels: 2"):
        assert part in said


def test_every_gpu_with_figures_has_an_estimate(path: Path) -> None:
    network, constants = read_network(path), Constants(1, 1, 1, 1, 0, 0, 0)
    for device in list_devices():
        if device.kind == "cpu":
            with pytest.raises(TargetError):
                limits(device, "fp16")
        else:
            assert times(work(network, "fp16"), limits(device, "fp16"), constants).total.sum() > 0, device.name


def test_a_report_row_is_no_measurement(path: Path) -> None:
    found = estimate(path, "jetson-orin-nano", precision="fp16")
    row = found.row()
    assert row["measured"] is False and row["n"] == 0 and row["p50_ms"] == found.ms
    assert row["p90_ms"] is None and row["p99_ms"] is None and row["mean_ms"] is None
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(latency_table({"target": "jetson-orin-nano", "latency": [row]}))
    drawn = console.export_text()
    assert "estimate" in drawn and "measured" not in drawn and "~" in drawn
    assert LatencyEstimate.from_json(json.loads(json.dumps(found.to_json()))).ms == found.ms


def test_the_command(path: Path) -> None:
    done = CliRunner().invoke(app, ["estimate", str(path), "--target", "jetson-orin-nano", "--target", "rtx-5090"])
    assert done.exit_code == 0, done.output
    assert done.output.count("an estimate and no measurement") == 2
    assert "ms in 80% of cases" in done.output and "no Blackwell GPU was fitted" in done.output
    done = CliRunner().invoke(app, ["estimate", str(path), "--target", "t4", "--precision", "int8", "--json"])
    (record,) = json.loads(done.output)
    assert record["measured"] is False and record["precision"] == "int8" and len(record["kernels"]) == DEPTH


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "x86-cpu"], "estimates are for NVIDIA GPUs with TensorRT"),
        (["--target", "jetson-nano", "--precision", "int8"], "it has no fast int8"),
        (["--target", "jetson-thor-t5000", "--precision", "int8"], "its profile has no peak_int8"),
        (["--target", "t4", "--precision", "fp8"], "precision: 'fp8' is not known"),
        (["--target", "nowhere"], "unknown device"),
        ([], "name the device"),
    ],
)
def test_bad_input_is_one_message(path: Path, arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["estimate", str(path), *arguments])
    assert done.exit_code == 2 and says in done.output and "Traceback" not in done.output
