"""Targets: what is in profiles/*.yaml, and what the processor at hand really is."""

from __future__ import annotations

import difflib
import os
import platform
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from edgekd.artifacts import Artifact
from edgekd.errors import TargetError

PROFILES = Path(__file__).parent.parent / "profiles"

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


@dataclass(frozen=True)
class Device(Artifact):
    """A target: what runs there, where it is, its numeric formats and physical limits.

    `backend` and `scheme` are rows of `edgekd.catalog`; `requires` lists instruction sets as `isa_features` names
    them; `limits` holds whatever the profile knows (units in the key, such as `memory_gb`).
    """

    name: str
    title: str
    kind: str  # cpu | gpu | jetson
    backend: str
    scheme: str
    host: str = "local"
    architectures: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("fp32",)
    requires: tuple[str, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)


def list_devices() -> list[Device]:
    """Every target in `profiles/`, by name."""
    return [_read(file) for file in sorted(PROFILES.glob("*.yaml"))]


def load_device(name: str) -> Device:
    """The target called `name`. Raises TargetError with the nearest names when there is none."""
    names = sorted(file.stem for file in PROFILES.glob("*.yaml"))
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3) or names
        raise TargetError(
            f"target: unknown device {name!r}", f"Known: {', '.join(near)}. `edgekd targets` lists them all."
        )
    return _read(PROFILES / f"{name}.yaml")


def _read(file: Path) -> Device:
    record: Any = yaml.safe_load(file.read_text())
    try:
        return Device.from_json({**record, "name": file.stem})
    except TypeError as error:
        raise TargetError(f"profiles/{file.name}: {error}", "Compare it with profiles/x86-cpu.yaml.") from None


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def isa_features() -> frozenset[str]:
    """Instruction sets of this processor that matter to inference, such as `avx2`, `avx512_vnni`, `amx_bf16`."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return frozenset(name for flag, name in _ISA.items() if flag in flags)


def has_vnni() -> bool:
    """Whether 8-bit dot products are one instruction: without it INT8 gains less over FP32."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & isa_features())


def has_bf16() -> bool:
    """Whether bf16 arithmetic is native; emulated, it is many times slower than FP32."""
    return bool({"avx512_bf16", "amx_bf16"} & isa_features())


def cpu_name() -> str:
    """The processor's model name; family, model and stepping are added, since a hypervisor may hide the rest."""
    info = _cpuinfo()
    name = info.get("model name") or platform.processor() or platform.machine()
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


def device_identity(device: Device) -> dict[str, str]:
    """What must be equal for a latency to still hold: processor, instruction sets, cores, OS kind, runtime version.

    The same from call to call on one machine; it goes into fingerprints. No clock, load or host name is in it.
    """
    return {
        "target": device.name,
        "backend": device.backend,
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "isa": " ".join(sorted(isa_features())),
        "cores": str(os.cpu_count()),
        "onnxruntime": package_version("onnxruntime") or package_version("onnxruntime-gpu") or "absent",
    }
