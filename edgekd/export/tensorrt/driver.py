"""The CUDA driver, asked before anything of TensorRT is: without one, parts of TensorRT end the process they run in."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from edgekd.profile.devices import Device

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Driver:
    """`cuda` is the newest CUDA it supports, such as 12.6; `compute_capabilities` are of its GPUs, 87 for sm_87."""

    cuda: float
    compute_capabilities: tuple[int, ...]


def probe() -> Driver | None:
    """The NVIDIA driver of this machine; None where there is none, or it does not answer."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    version, count = ctypes.c_int(), ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(version)) or not version.value or cuda.cuInit(0):
        return None
    if cuda.cuDeviceGetCount(ctypes.byref(count)):
        return None
    found = []
    for index in range(count.value):
        device, parts = ctypes.c_int(), [ctypes.c_int(), ctypes.c_int()]
        if cuda.cuDeviceGet(ctypes.byref(device), index):
            return None
        for attribute, part in zip((_MAJOR, _MINOR), parts, strict=True):
            if cuda.cuDeviceGetAttribute(ctypes.byref(part), attribute, device):
                return None
        found.append(10 * parts[0].value + parts[1].value)
    return Driver(version.value // 1000 + version.value % 1000 / 100, tuple(found))


def other_gpu(device: Device) -> str | None:
    """Why the full TensorRT, which builds for the GPU it runs on, cannot build for `device` here."""
    driver = probe()
    if driver is None or not driver.compute_capabilities:
        return "no NVIDIA GPU answers here, and TensorRT builds on the one that runs the engine"
    if device.sm_number not in driver.compute_capabilities:
        here = ", ".join(f"sm_{sm}" for sm in driver.compute_capabilities)
        return f"the GPU here is {here}, and TensorRT builds for the one it runs on, not for {device.sm}"
    return None
