"""The CUDA driver is asked first: simulated libraries that answer, fail or are not there."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from edgekd.errors import BackendError
from edgekd.profile.devices import load_device
from edgekd.profile.driver import Driver, other_gpu, probe


class SimulatedCuda:
    """libcuda with GPUs of these compute capabilities; the function `failing` returns an error."""

    def __init__(self, *gpus: tuple[int, int], failing: str = "") -> None:
        self.gpus, self.failing = gpus, failing

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == self.failing:
                return 999
            if name == "cuInit":
                return 0
            target, rest = arguments[0]._obj, arguments[1:]
            if name == "cuDeviceGetAttribute":
                target.value = self.gpus[rest[1]][rest[0] - 75]
            else:
                target.value = {"cuDriverGetVersion": 12060, "cuDeviceGetCount": len(self.gpus)}.get(name, *rest[:1])
            return 0

        return call


def put(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)


def test_gpus_and_their_compute_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, SimulatedCuda((8, 7), (12, 0)))
    assert probe() == Driver("12.6", (87, 120))
    assert other_gpu(load_device("jetson-orin-nano")) is None
    assert other_gpu(load_device("rtx-5090")) is None
    why = other_gpu(load_device("rtx-4090"))
    assert why is not None and "sm_87, sm_120" in why and "not for sm_89" in why


def test_no_gpu_and_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, SimulatedCuda())
    assert probe() == Driver("12.6", ())

    def absent(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert probe() is None
    why = other_gpu(load_device("rtx-4090"))
    assert why is not None and why.startswith("no NVIDIA GPU answers here")


@pytest.mark.parametrize("failing", ["cuDriverGetVersion", "cuInit", "cuDeviceGetCount", "cuDeviceGetAttribute"])
def test_a_driver_that_fails(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, SimulatedCuda((8, 9), failing=failing))
    with pytest.raises(BackendError, match=f"error 999 in {failing}"):
        probe()
    assert f"error 999 in {failing}" in str(other_gpu(load_device("rtx-4090")))
