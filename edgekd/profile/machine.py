"""What this machine is: its processor, its cores and the packages installed."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# The instruction sets that decide which kernels a runtime picks, by the names of /proc/cpuinfo.
_ISA = {
    "avx2": "avx2",
    "fma": "fma",
    "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
}


@cache
def _cpuinfo() -> dict[str, str]:
    """`cpuinfo` of this machine; empty where it has no such file."""
    try:
        return cpuinfo(Path("/proc/cpuinfo").read_text())
    except OSError:
        return {}


def cpuinfo(text: str) -> dict[str, str]:
    """The first processor's lines of a /proc/cpuinfo."""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def isa_features(info: dict[str, str] | None = None) -> frozenset[str]:
    """Instruction sets that matter to inference, such as `avx2`, `avx512_vnni`, `amx_bf16`: of this processor, or of
    the one whose `cpuinfo` is given."""
    info = _cpuinfo() if info is None else info
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return frozenset(name for flag, name in _ISA.items() if flag in flags)


def has_vnni() -> bool:
    """Whether 8-bit dot products are one instruction: without it INT8 gains less over FP32."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8", "dotprod", "i8mm"} & isa_features())


def has_bf16() -> bool:
    """Whether bf16 arithmetic is native; emulated, it is many times slower than FP32."""
    return bool({"avx512_bf16", "amx_bf16"} & isa_features())


def cpu_name(info: dict[str, str] | None = None, machine: str = "") -> str:
    """The processor's model name; family, model and stepping are added, since a hypervisor may hide the rest.

    Of this machine, or of the one whose `cpuinfo` and architecture are given.
    """
    name = "" if info is not None else platform.processor() or platform.machine()
    info = _cpuinfo() if info is None else info
    name = info.get("model name") or name or machine
    parts = [info[key] for key in ("cpu family", "model", "stepping") if key in info]
    return f"{name} ({'.'.join(parts)})" if parts else name


def usable_cores() -> list[int]:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def package_version(name: str) -> str | None:
    """An installed distribution's version without importing it; None when it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
