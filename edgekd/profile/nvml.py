"""What NVIDIA's management library says of a GPU: clocks, temperature, power. It changes nothing there."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_SM, _MEMORY = 1, 2  # NVML_CLOCK_SM, NVML_CLOCK_MEM
_CORE = 0  # NVML_TEMPERATURE_GPU
_SUCCESS = 0


def read(index: int = 0) -> dict[str, Any] | None:
    """A GPU's state now; None where there is no such library or GPU, as on a Jetson. A value not told is None.

    `sm_mhz` and `memory_mhz` are the clocks, `temperature_c` the chip's, `power_w` drawn now, `energy_j` since the
    driver was loaded, `throttled` the reasons why clocks are held down as a bit mask (nvmlClocksThrottleReason*).
    """
    try:
        library = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        return None
    handle = ctypes.c_void_p()
    if library.nvmlInit_v2() != _SUCCESS:
        return None
    try:
        if library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) != _SUCCESS:
            return None

        def ask(function: str, *arguments: int, kind: Any = ctypes.c_uint, scale: float = 1) -> float | None:
            answer = kind()
            code = getattr(library, function)(handle, *map(ctypes.c_uint, arguments), ctypes.byref(answer))
            return answer.value * scale if code == _SUCCESS else None

        wide = ctypes.c_ulonglong
        return {
            "sm_mhz": ask("nvmlDeviceGetClockInfo", _SM),
            "memory_mhz": ask("nvmlDeviceGetClockInfo", _MEMORY),
            "temperature_c": ask("nvmlDeviceGetTemperature", _CORE),
            "power_w": ask("nvmlDeviceGetPowerUsage", scale=1e-3),
            "energy_j": ask("nvmlDeviceGetTotalEnergyConsumption", kind=wide, scale=1e-3),
            "throttled": ask("nvmlDeviceGetCurrentClocksThrottleReasons", kind=wide),
        }
    finally:
        library.nvmlShutdown()
