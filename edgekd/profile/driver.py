"""The CUDA driver, asked before anything of TensorRT is: without one, parts of TensorRT end the process they run in."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from edgekd.errors import BackendError
from edgekd.profile.device import Device

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Driver:
    """`cuda` is the newest CUDA it supports, such as 12.6; `compute_capabilities` are of its GPUs, 87 for sm_87."""

    cuda: str
    compute_capabilities: tuple[int, ...]


def probe() -> Driver | None:
    """The NVIDIA driver of this machine, or None. Raises BackendError where there is one that does not answer."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None

    def ask(function: str, *arguments: int) -> int:
        """The number that a function of the driver writes into its first argument."""
        answer = ctypes.c_int()
        code = getattr(library, function)(ctypes.byref(answer), *arguments)
        if code != 0:
            raise BackendError(f"the NVIDIA driver gives error {code} in {function}", "Reinstall the NVIDIA driver.")
        return answer.value

    version = ask("cuDriverGetVersion")
    code = library.cuInit(0)
    if code != 0 or version == 0:
        raise BackendError(f"the NVIDIA driver gives error {code} in cuInit", "Reinstall the NVIDIA driver.")
    gpus = [ask("cuDeviceGet", index) for index in range(ask("cuDeviceGetCount"))]
    found = [10 * ask("cuDeviceGetAttribute", _MAJOR, gpu) + ask("cuDeviceGetAttribute", _MINOR, gpu) for gpu in gpus]
    return Driver(f"{version // 1000}.{version % 1000 // 10}", tuple(found))


def missing_gpu(device: Device) -> str | None:
    """Why `device`'s GPU is not to be used here; None where it is."""
    try:
        driver = probe()
    except BackendError as error:
        return error.what
    if driver is None or not driver.compute_capabilities:
        return "no NVIDIA GPU answers here"
    if device.sm_number != driver.compute_capabilities[0]:
        return f"the GPU here is sm_{driver.compute_capabilities[0]}, not {device.sm}"
    return None


def other_gpu(device: Device) -> str | None:
    """Why what builds on the GPU that it builds for cannot do so for `device` here; None where it can."""
    try:
        driver = probe()
    except BackendError as error:
        return error.what
    if driver is None or not driver.compute_capabilities:
        return "no NVIDIA GPU answers here, and it builds on the one that runs the engine"
    if device.sm_number not in driver.compute_capabilities:
        here = ", ".join(f"sm_{sm}" for sm in driver.compute_capabilities)
        return f"the GPU here is {here}, and it builds for the one it runs on, not for {device.sm}"
    return None
