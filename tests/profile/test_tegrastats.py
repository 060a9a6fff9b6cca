"""tegrastats' lines from JetPack 4 to 7, as captured on boards."""

from __future__ import annotations

import pytest
from boards import AGX_ORIN_JP5, AGX_ORIN_JP7, NANO_JP4, ORIN_NANO_JP6, THOR_JP7, XAVIER_NX_JP4, Simulated, throttled

from edgekd.profile.tegrastats import Sample, clock_drop, parse, power_mw, summary

AGX_ORIN_JP6 = (
    "05-09-2026 18:42:06 RAM 3000/62841MB (lfb 44x4MB) CPU [3%@1036,0%@1036] GR3D_FREQ 0%@[0,0] NVENC 79%@166 "
    "NVDEC off cpu@52.562C tj@52.562C VDD_GPU_SOC 2412mW/2412mW VDD_CPU_CV 1607mW/1607mW VIN_SYS_5V0 4707mW/4707mW"
)
# idle: no load of the GPU and none of the memory
THOR_IDLE = (
    "08-08-2026 20:58:23 RAM 3429/125749MB (lfb 120x4MB) CPU [0%,5%,off]@2601 EMC_FREQ @4266 "
    "GR3D_FREQ @[1574,1574,1574] cpu@49.75C/49.75C tj@51.218C/51.218C gpu@51.218C/51.218C "
    "VDD_GPU 6330mW/6330mW/6330mW VIN 28906mW/14453mW/28906mW"
)


def sample(line: str) -> Sample:
    found = parse(line)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("line", "gpu", "memory", "total"),
    [
        (NANO_JP4.tegrastats[0], (22, 921), (7, 1600), ("POM_5V_IN", 2591)),
        (XAVIER_NX_JP4.tegrastats[0], (33, None), (7, None), ("VDD_IN", 3902)),
        (AGX_ORIN_JP5.tegrastats[0], (0, 0), (0, 2133), ("VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0", 6831)),
        (AGX_ORIN_JP6, (0, 0), (None, None), ("VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0", 8726)),
        (ORIN_NANO_JP6.tegrastats[0], (14, 420), (None, None), ("VDD_IN", 4521)),
        (AGX_ORIN_JP7.tegrastats[0], (12, 1300), (3, 3199), ("VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0", 13907)),
        (THOR_JP7.tegrastats[0], (87, 1574), (34, 4266), ("VIN", 124486)),
        (THOR_IDLE, (None, 1574), (None, 4266), ("VIN", 28906)),
    ],
)
def test_a_line(line: str, gpu: tuple[int, int], memory: tuple[int, int], total: tuple[str, int]) -> None:
    found = sample(line)
    assert (found.gpu_load, found.gpu_mhz) == gpu
    assert (found.memory_load, found.memory_mhz) == memory
    assert found.total == total
    assert {"RAM", "SWAP", "IRAM"}.isdisjoint(found.rails)


def test_temperatures_without_the_sensors_that_are_off() -> None:
    found = sample(AGX_ORIN_JP5.tegrastats[0]).temperatures
    assert found["tj"] == 42.593 and "GPU" not in found and "CV0" not in found
    assert sample(THOR_JP7.tegrastats[0]).temperatures["soc012"] == 55.375
    assert sample(NANO_JP4.tegrastats[0]).temperatures["thermal"] == 34.75


def test_parts_are_not_a_total() -> None:
    assert sample("RAM 1/2MB VDD_CPU_GPU_CV 1331/1180 VDD_SOC 997/941").total is None
    assert sample("RAM 1/2MB GR3D_FREQ 0%").total is None
    assert power_mw([sample("RAM 1/2MB GR3D_FREQ 0%")]) is None and power_mw([]) is None


def test_what_is_no_line() -> None:
    assert parse("") is None and parse("tegrastats: not found") is None


@pytest.mark.parametrize(
    ("board", "before", "clocks", "expected"),
    [
        (ORIN_NANO_JP6, "14%@[420]", "97%@[1020] to 97%@[612]", (1020, 612)),
        (THOR_JP7, "87%@[1574,1574,1574]", "@[1574,1574,1574] to @[1100,1100,1100]", (1574, 1100)),
        (ORIN_NANO_JP6, "14%@[420]", "97%@[1020] to 97%@[1009]", None),  # within 5 %
        (ORIN_NANO_JP6, "14%@[420]", "97%@[1020] to 3%@[306]", None),  # at rest
    ],
)
def test_a_clock_that_falls_at_work(
    board: Simulated, before: str, clocks: str, expected: tuple[int, int] | None
) -> None:
    samples = [sample(line) for line in throttled(board, before, clocks)]
    assert clock_drop(samples) == expected
    assert clock_drop(samples[:1]) is None


def test_a_summary() -> None:
    line = ORIN_NANO_JP6.tegrastats[0]
    samples = [sample(line), sample(line.replace("tj@45.5C", "tj@47C").replace("4521mW/", "6521mW/")), sample(line)]
    found = summary(samples)
    assert found["samples"] == 3 and found["gpu_mhz"] == [420, 420] and found["gpu_load_percent"] == [14, 14]
    assert found["rails_mw"] == {"VDD_CPU_GPU_CV": 1320, "VDD_IN": 5188, "VDD_SOC": 1080}
    assert found["temperature_c"]["tj"] == [45.5, 47.0, 45.5]  # type: ignore[index]
    assert power_mw(samples) == ("VDD_IN", pytest.approx(5187.67, abs=0.01))
