"""tegrastats: what a Jetson says of its power, temperatures and clocks, a line at a time, from JetPack 4 to 7.

Every field is optional: which ones a line has depends on the board, the release, and who asks. Of the two numbers of a
rail (three since JetPack 7: now, mean, and peak, the last from memory) the first is used.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# `VDD_IN 4521mW/4521mW`, JetPack 4 without the unit, JetPack 7 with a third. RAM and SWAP have MB there.
_RAIL = re.compile(r"(?<=\s)([A-Z][A-Z0-9_]*) (\d+)(?:mW)?(?:/\d+(?:mW)?){1,2}(?=\s|$)")
_TEMPERATURE = re.compile(r"(?<=\s)([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C(?:/-?[\d.]+C)?(?=\s|$)")
# `33%`, `0%@2133`, `14%@[420]`, `@[1574,1574,1574]`: a load in percent, a clock in MHz for each part, or either
_ENGINE = r"{} (?:(\d+)%)?(?:@\[?([\d,]+)\]?)?"
_GPU, _MEMORY = (re.compile(_ENGINE.format(name)) for name in ("GR3D_FREQ", "EMC_FREQ"))
_OFF = -200.0  # a sensor without power says -256

# What the whole module or board draws, where there is such a rail: Orin Nano and NX, Xavier NX, TX2; Nano; Thor.
TOTALS = ("VDD_IN", "POM_5V_IN", "VIN")
# Of an AGX Orin the sum of the others; this one is behind VIN_SYS_5V0 (from memory), and NC is not connected.
_COUNTED_ELSEWHERE = ("VDDQ_VDD2_1V8AO", "NC")
_NO_TOTAL = ("POM_5V_GPU", "POM_5V_CPU", "VDD_CPU_GPU_CV", "VDD_SOC")  # parts whose whole was not in the line


@dataclass(frozen=True)
class Sample:
    """A line: `rails` in mW, `temperatures` in degrees Celsius, clocks in MHz, loads in percent; None if not said."""

    rails: dict[str, int]
    temperatures: dict[str, float]
    gpu_load: int | None
    gpu_mhz: int | None
    memory_load: int | None
    memory_mhz: int | None

    @property
    def total(self) -> tuple[str, int] | None:
        """What counts as the whole, and its mW; None where the line does not tell."""
        for name in TOTALS:
            if name in self.rails:
                return name, self.rails[name]
        parts = {name: value for name, value in self.rails.items() if name not in _COUNTED_ELSEWHERE}
        if not parts or set(parts) & set(_NO_TOTAL):
            return None
        return " + ".join(parts), sum(parts.values())


def parse(line: str) -> Sample | None:
    """A line of tegrastats; None where it is not one."""
    if "RAM " not in line:
        return None
    temperatures = {name: float(value) for name, value in _TEMPERATURE.findall(line) if float(value) > _OFF}
    rails = {name: int(value) for name, value in _RAIL.findall(line)}
    return Sample(rails, temperatures, *_engine(_GPU, line), *_engine(_MEMORY, line))


def _engine(pattern: re.Pattern[str], line: str) -> tuple[int | None, int | None]:
    """(load, clock); of several parts the fastest clock, since an idle part is switched off."""
    found = pattern.search(line)
    if found is None:
        return None, None
    clocks = [int(clock) for clock in (found[2] or "").split(",") if clock]
    return int(found[1]) if found[1] else None, max(clocks, default=None)


def summary(samples: Sequence[Sample]) -> dict[str, object]:
    """What a run was measured under: mean mW of every rail, first, highest and last temperature, clocks' range."""
    rails = {name for sample in samples for name in sample.rails if name != "NC"}
    names = {name for sample in samples for name in sample.temperatures}
    out: dict[str, object] = {"samples": len(samples)}
    if rails:
        out["rails_mw"] = {
            name: round(statistics.fmean(s.rails[name] for s in samples if name in s.rails)) for name in sorted(rails)
        }
    if names:
        out["temperature_c"] = {name: _first_highest_last(samples, name) for name in sorted(names)}
    for key, values in {
        "gpu_mhz": [s.gpu_mhz for s in samples],
        "memory_mhz": [s.memory_mhz for s in samples],
        "gpu_load_percent": [s.gpu_load for s in samples],
    }.items():
        told = [value for value in values if value is not None]
        if told:
            out[key] = [min(told), max(told)]
    return out


def _first_highest_last(samples: Sequence[Sample], name: str) -> list[float]:
    told = [sample.temperatures[name] for sample in samples if name in sample.temperatures]
    return [told[0], max(told), told[-1]]


def clock_drop(samples: Sequence[Sample], tolerance: float = 0.05) -> tuple[int, int] | None:
    """(highest, last) clock of the GPU in MHz where it ended below the highest by more than `tolerance`, at work.

    At work is a load of at least 50 %, or a line that has no load: an idle GPU lowers its clock by itself.
    """
    clocks = [s.gpu_mhz for s in samples if s.gpu_mhz and (s.gpu_load is None or s.gpu_load >= 50)]
    if len(clocks) < 2:
        return None
    highest, last = max(clocks), round(statistics.median(clocks[-3:]))
    return (highest, last) if last < (1 - tolerance) * highest else None


def power_mw(samples: Sequence[Sample]) -> tuple[str, float] | None:
    """(rail, mean mW) of the whole; None without samples or where they do not tell."""
    totals = [sample.total for sample in samples]
    told = [total for total in totals if total is not None]
    return (told[0][0], statistics.fmean(value for _, value in told)) if told else None
