"""The state of the machine before and after a measurement, and what of it a reader of the figures must know."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd.profile import nvml

QUIET = 0.2  # cores that other processes may keep busy before a measurement is said to be disturbed
STOLEN = 0.01  # share of the processors' time that the hypervisor may take
WINDOW = 0.25  # seconds: /proc/stat counts in 10 ms

Snapshot = dict[str, Any]


def snapshot(cores: Sequence[int]) -> Snapshot:
    """The machine now. What the system does not say is None.

    `at` and `own_s` are seconds of the clock and of this process and its children on all cores; `busy_s` and `stolen_s`
    are of all processors since boot; `clock_mhz` is the mean of `cores`, `temperature_c` the hottest sensor.
    """
    busy, stolen = _ticks() or (None, None)
    return {
        "at": time.monotonic(),
        "own_s": own_seconds(),
        "busy_s": busy,
        "stolen_s": stolen,
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "clock_mhz": _clock(cores),
        "temperature_c": _temperature(),
        "gpu": nvml.read(),
    }


def own_seconds() -> float:
    """Seconds that this process and the children it has waited for have spent on processors."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def others(before: Snapshot, after: Snapshot, asked_s: float = 0.0) -> tuple[float, float] | None:
    """(cores that other processes kept busy, share of all processors' time that the hypervisor took) between two.

    `asked_s` are processor seconds of whoever asked for the measurement, which are none of others. None where the
    system does not say, or the time between is too short to tell.
    """
    seconds = after["at"] - before["at"]
    if before["busy_s"] is None or after["busy_s"] is None or seconds < WINDOW:
        return None
    busy = after["busy_s"] - before["busy_s"] - (after["own_s"] - before["own_s"]) - asked_s
    stolen = (after["stolen_s"] - before["stolen_s"]) / (seconds * (os.cpu_count() or 1))
    return max(0.0, busy / seconds), stolen


def disturbances(
    during: tuple[float, float] | None, busy_before: float | None, load: Sequence[float] | None, spare: int
) -> list[str]:
    """What a machine that was not quiet did, in words; `load` and `spare` cores count where nothing better is known."""
    found = []
    cores = os.cpu_count() or 1
    if busy_before is not None and busy_before > QUIET:
        found.append(f"the machine was busy before: other processes used {busy_before:.1f} of {cores} cores")
    if during is not None and during[0] > QUIET:
        found.append(f"the machine was busy meanwhile: other processes used {during[0]:.1f} of {cores} cores")
    if during is not None and during[1] > STOLEN:
        found.append(f"the hypervisor took {during[1]:.0%} of the processors' time")
    if during is None and busy_before is None and load is not None and load[0] > spare + 0.5:
        found.append(f"the machine was busy before: load average {load[0]:.2f} with {spare} cores to spare")
    return found


def unsteadiness(samples: Sequence[int], preempted: int) -> list[str]:
    """What the durations themselves say of how far they can be trusted."""
    found = []
    if preempted > 0.05 * len(samples):
        found.append(
            f"other processes took the core {preempted} times in {len(samples)} runs; longer runs lost more,"
            " so ratios between models are off"
        )
    median, slow = statistics.median(samples), statistics.quantiles(samples, n=10)[-1]
    if slow > 1.5 * median:
        found.append(f"unsteady: one run in ten took more than {slow / median:.1f} times the median")
    return found


def _ticks() -> tuple[float, float] | None:
    """Seconds of all processors spent on work, and taken by the hypervisor, since boot (proc(5), /proc/stat)."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in words[1:9])
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / tick, steal / tick


def _clock(cores: Sequence[int]) -> float | None:
    """Mean clock of the cores in MHz, by the frequency driver; a virtual machine has none."""
    try:
        files = [Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq") for core in cores]
        return statistics.fmean(int(file.read_text()) / 1e3 for file in files)
    except (OSError, ValueError, statistics.StatisticsError):
        return None


def _temperature() -> float | None:
    """The hottest of the kernel's thermal zones in degrees Celsius."""
    found = []
    for file in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        try:
            found.append(int(file.read_text()) / 1e3)
        except (OSError, ValueError):
            continue  # a zone that is switched off
    real = [degrees for degrees in found if degrees > -200]  # a Jetson says -256 of a sensor that is off
    return max(real) if real else None
