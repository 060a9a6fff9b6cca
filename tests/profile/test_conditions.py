from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekd.profile import conditions, nvml
from edgekd.profile.conditions import disturbances, others, snapshot, unsteadiness


@pytest.fixture
def busy() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    time.sleep(0.1)
    yield
    process.kill()
    process.wait()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not say")
def test_another_process_is_seen(busy: None) -> None:
    before = snapshot([0])
    time.sleep(1)
    found = others(before, snapshot([0]))
    assert found is not None and found[0] > 0.3


def test_our_own_work_is_none_of_others() -> None:
    before: dict[str, Any] = {"at": 10.0, "own_s": 1.0, "busy_s": 100.0, "stolen_s": 0.0}
    after = {"at": 12.0, "own_s": 2.5, "busy_s": 102.0, "stolen_s": 0.0}
    assert others(before, after, asked_s=0.1) == (pytest.approx(0.2), 0.0)
    assert others(before, {**after, "own_s": 3.5}) == (0.0, 0.0)  # ticks and clocks are not read at one moment
    assert others(before, {**after, "at": 10.1}) is None
    assert others({**before, "busy_s": None}, after) is None


def test_a_snapshot_says_null_where_the_system_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(conditions, "Path", lambda name: tmp_path / str(name).lstrip("/"))
    monkeypatch.setattr(nvml.ctypes, "CDLL", _absent)
    found = snapshot([0])
    assert [found[key] for key in ("busy_s", "clock_mhz", "temperature_c", "gpu")] == [None] * 4
    zones = tmp_path / "sys" / "class" / "thermal"
    for i, millidegrees in enumerate((45_500, 61_000, -256_000)):
        (zones / f"thermal_zone{i}").mkdir(parents=True)
        (zones / f"thermal_zone{i}" / "temp").write_text(f"{millidegrees}\n")
    clock = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    clock.mkdir(parents=True)
    (clock / "scaling_cur_freq").write_text("2400000\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "stat").write_text("cpu  100 0 100 900 5 0 0 50 0 0\ncpu0 1 2 3\n")
    found = snapshot([0])
    assert (found["clock_mhz"], found["temperature_c"]) == (2400.0, 61.0)
    assert found["busy_s"] == 4 * found["stolen_s"] > 0


def _absent(name: str) -> Any:
    raise OSError(name)


class SimulatedNvml:
    """libnvidia-ml with one GPU, which does not meter energy."""

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == "nvmlDeviceGetTotalEnergyConsumption":
                return 3  # NVML_ERROR_NOT_SUPPORTED
            if name.startswith("nvmlDeviceGet") and "Handle" not in name:
                arguments[-1]._obj.value = {"Clo": 1410, "Tem": 56, "Pow": 71_500, "Cur": 4}[name[13:16]]
            return 0

        return call


def test_a_simulated_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml.ctypes, "CDLL", lambda name: SimulatedNvml())
    assert nvml.read() == {
        "sm_mhz": 1410,
        "memory_mhz": 1410,
        "temperature_c": 56,
        "power_w": 71.5,
        "energy_j": None,
        "throttled": 4,
    }


def test_a_reader_is_warned_of_a_busy_machine_and_not_of_a_quiet_one() -> None:
    assert disturbances((0.05, 0.001), 0.1, [7.0, 7.0, 7.0], 1) == []  # busy a minute ago is not busy now
    assert unsteadiness([100, 101, 102] * 20, 0) == []
    found = disturbances((1.4, 0.05), 1.9, None, 1)
    assert [line.split(":")[0] for line in found] == [
        "the machine was busy before",
        "the machine was busy meanwhile",
        "the hypervisor took 5% of the processors' time",
    ]
    assert "load average 3.00 with 1 cores to spare" in disturbances(None, None, [3.0, 1.0, 1.0], 1)[0]
    slow = unsteadiness([100] * 30 + [900] * 20, 20)
    assert [line.split(" took")[0].split(":")[0] for line in slow] == ["other processes", "unsteady"]
