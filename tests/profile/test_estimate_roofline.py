"""The times of two layers worked out by hand, and which of a device's figures they come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_graphs import two_layers

from edgekd.errors import ModelError, TargetError
from edgekd.profile.device import Device, Figure
from edgekd.profile.devices import load_device
from edgekd.profile.estimate.kernels import Kernel, Network, network
from edgekd.profile.estimate.roofline import Constants, Precision, limits, precision_of, times, under_the_roof, work

HALVES = Constants(
    tensor=0.5,
    plain=0.25,
    grouped=0.1,
    bandwidth=0.5,
    launch_us=4,
    launch_kcycles=10,
    launch_kcycles_old=20,
)


def board(**figures: float) -> Device:
    """A Jetson with an Ampere GPU of round figures."""
    known = {
        "peak_fp32": 1.0,
        "peak_fp16": 8.0,
        "peak_int8": 16.0,
        "memory_bandwidth": 100.0,
        "gpu_clock": 0.5,
        **figures,
    }
    made = {name: Figure(value, "unit", "this test") for name, value in known.items()}
    return replace(load_device("jetson-orin-nano"), name="board", figures=made)


def one(kernel: Kernel) -> Network:
    return Network((kernel,), (1, 4, 8, 8), "fp32", {})


def test_two_layers_by_hand() -> None:
    """FP16: 4 TFLOP/s and 50 GB/s are reached; a launch is 10,000 cycles of 2 ns."""
    found = times(work(network(two_layers()), "fp16"), limits(board(), "fp16"), HALVES)
    flops = np.array([2 * 8 * 8 * 16 * 4 * 9, 2 * 4 * 4 * 8 * 16])
    moved = 2 * np.array([4 * 64 + 16 * 64 + 16 * 36 + 16, 16 * 64 + 8 * 16 + 8 * 16 + 8])
    np.testing.assert_allclose(found.arithmetic, flops / 4e12 * 1e3)
    np.testing.assert_allclose(found.memory, moved / 50e9 * 1e3)
    np.testing.assert_allclose(found.launch, [0.02, 0.02])
    np.testing.assert_allclose(found.total, np.maximum(found.arithmetic, found.memory) + 0.02)


def test_what_is_under_the_roof(tmp_path: Path) -> None:
    onnx.save(two_layers(), tmp_path / "two.onnx")
    found = under_the_roof(tmp_path / "two.onnx", board(), 1)
    moved = 4 * (4 * 64 + 16 * 64 + 16 * 36 + 16 + 16 * 64 + 8 * 16 + 8 * 16 + 8)
    assert found is not None and found["gops"] == pytest.approx(2e-9 * (8 * 8 * 16 * 4 * 9 + 4 * 4 * 8 * 16))
    assert found["mbytes"] == pytest.approx(moved / 1e6)
    assert (found["peak_tops"], found["bandwidth_gbs"]) == (4.0, 100.0)  # TF32: half the rate of FP16
    assert under_the_roof(tmp_path / "two.onnx", load_device("x86-cpu"), 1) is None


@pytest.mark.parametrize(
    ("device", "precision", "tflops"),
    [
        (board(), "fp16", 0.5 * 8),
        (board(), "int8", 0.5 * 16),
        (board(), "fp32", 0.5 * 4),  # TF32 on tensor cores: half of FP16
        (replace(board(), compute_capability=7.2), "fp32", 0.25 * 1),  # which came with Ampere
        (replace(board(), compute_capability=7.2), "fp16", 0.5 * 8),
        (board(tensor_cores=0), "fp16", 0.25 * 8),
        (replace(board(), compute_capability=5.3), "fp16", 0.25 * 8),
    ],
)
def test_arithmetic_runs_at_the_rate_of_its_format(device: Device, precision: Precision, tflops: float) -> None:
    kernel = Kernel("k", "matrix", ["Conv"], macs=10**9)
    found = times(work(one(kernel), precision), limits(device, precision), HALVES)
    np.testing.assert_allclose(found.arithmetic, [2e9 / (tflops * 1e12) * 1e3])


@pytest.mark.parametrize(("capability", "tflops"), [(8.7, 0.1 * 1), (7.2, 0.1 * 2)])
def test_few_channels_a_group_run_on_cuda_cores(capability: float, tflops: float) -> None:
    """Twice as fast in FP16, until Ampere doubled FP32."""
    kernel, device = Kernel("k", "grouped", ["Conv"], macs=10**9), replace(board(), compute_capability=capability)
    found = times(work(one(kernel), "fp16"), limits(device, "fp16"), HALVES)
    np.testing.assert_allclose(found.arithmetic, [2e9 / (tflops * 1e12) * 1e3])


@pytest.mark.parametrize(
    ("device", "us"),
    [
        (board(), 20),
        (replace(board(), compute_capability=6.2), 40),
        (replace(board(), kind="gpu"), 4),
    ],
)
def test_a_launch_is_cycles_on_a_jetson(device: Device, us: float) -> None:
    found = times(work(one(Kernel("k", "move", ["Relu"])), "fp16"), limits(device, "fp16"), HALVES)
    np.testing.assert_allclose(found.total, [us / 1e3])


def test_bytes_by_precision() -> None:
    """A quantized graph says itself what is INT8; of a float one all would be."""
    kernel = Kernel("k", "matrix", ["Conv"], numbers=100, quantized=60, weights=10, int8=True)
    stored = Network((kernel,), (1, 4, 8, 8), "int8", {})
    assert work(stored, "int8").bytes.tolist() == [40 * 2 + 60 + 10]
    floats = one(replace(kernel, quantized=0, int8=False))
    assert {p: work(floats, p).bytes.tolist() for p in ("fp32", "fp16", "int8")} == {
        "fp32": [440],
        "fp16": [220],
        "int8": [110],
    }
    assert work(floats, "int8").int8.all() and not work(floats, "fp16").int8.any()


def test_the_precision_is_the_graphs_own_unless_it_can_be_another() -> None:
    floats = one(Kernel("k", "matrix", ["Conv"]))
    assert precision_of(floats, None) == "fp32" and precision_of(floats, "int8") == "int8"
    assert precision_of(replace(floats, stored="int8"), None) == "int8"
    for stored, wanted in (("int8", "fp16"), ("fp16", "fp32"), ("fp32", "fp8")):
        with pytest.raises(ModelError, match=f"precision: '?{wanted}"):
            precision_of(replace(floats, stored=stored), wanted)


def test_a_target_needs_tensorrt_its_format_and_its_figures() -> None:
    with pytest.raises(TargetError, match="x86-cpu: estimates are for NVIDIA GPUs"):
        limits(load_device("x86-cpu"), "fp16")
    with pytest.raises(TargetError, match="jetson-nano: it has no fast int8"):
        limits(load_device("jetson-nano"), "int8")
    bare = board()
    for missing in ("peak_fp16", "memory_bandwidth", "gpu_clock"):
        figures = {name: figure for name, figure in bare.figures.items() if name != missing}
        with pytest.raises(TargetError, match=f"board: its profile has no {missing}"):
            limits(replace(bare, figures=figures), "fp16")
