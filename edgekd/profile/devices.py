"""Targets: what is in profiles/*.yaml, and what the processor at hand really is."""

from __future__ import annotations

import difflib
import os
import platform
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from edgekd.artifacts import Artifact
from edgekd.catalog import BACKENDS, LEAST_OPSET, OPSET, SCHEMES, SchemeRow, find, parsed_opset
from edgekd.errors import ConfigError, TargetError
from edgekd.stage import fingerprint

PROFILES = Path(__file__).parent.parent / "profiles"

BackendName = Literal[
    "onnxruntime-cpu",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "onnxruntime-tensorrt-rtx",
    "tensorrt",
    "trtexec",
    "torch-cuda",
]
Format = Literal["fp32", "fp16", "bf16", "int8", "fp8", "int4", "fp4"]

# Every figure a profile may state, and its unit. Peaks are dense, at the highest clock, of the GPU without its DLAs.
UNITS = {
    "memory": "GB",
    "memory_bandwidth": "GB/s",
    "sms": "SMs",
    "gpu_clock": "GHz",
    "tensor_cores": "cores",
    "peak_fp32": "TFLOP/s",
    "peak_fp16": "TFLOP/s",
    "peak_fp8": "TFLOP/s",
    "peak_int8": "TOP/s",
    "dla_cores": "cores",
    "dla_clock": "GHz",
    "dla_int8": "TOP/s",
    "dla_int8_sparse": "TOP/s",
    "power": "W",
}

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
_GPU_PACKAGES = ("tensorrt", "tensorrt-rtx-cu13", "onnxruntime-ep-nv-tensorrt-rtx-cu13", "torch")
# For pydantic, which reads profiles and is not imported here: the measuring process has no use for it.
_NO_OTHER_KEYS = {"extra": "forbid"}


@dataclass(frozen=True)
class Figure:
    """A physical limit: its number, its unit of `UNITS`, where it is from, and what to know before using it."""

    __pydantic_config__ = _NO_OTHER_KEYS
    value: float
    unit: str
    source: str  # a document, `computed: ...` from other figures, or `from memory`, which nobody has checked
    note: str = ""


@dataclass(frozen=True)
class VersionRange:
    """Versions from `min` to `max`, such as "8.4.1" to "10.3.0"; without `max` no end is known."""

    __pydantic_config__ = _NO_OTHER_KEYS
    min: str
    source: str
    max: str | None = None


@dataclass(frozen=True)
class PowerMode:
    """A mode of a Jetson's `nvpmodel`: its number there, its budget in W and the GPU's clock in GHz, where known."""

    __pydantic_config__ = _NO_OTHER_KEYS
    name: str
    source: str
    id: int | None = None
    watts: float | None = None
    gpu_clock: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Device(Artifact):
    """A target: what runs there, where it is, its numeric formats and physical limits.

    `backend` and `scheme` are rows of `edgekd.catalog`. `architectures` are machine
    names of its processor, `requires` instruction sets as `isa_features` names them; `formats` are the numeric formats
    its arithmetic units take. `tensorrt` and `jetpack` are the versions that support it, `figures` go by `UNITS`.
    """

    __pydantic_config__ = _NO_OTHER_KEYS
    name: str
    title: str
    kind: Literal["cpu", "gpu", "jetson"]
    backend: BackendName
    scheme: Literal["ort", "int8-weight-only", "tensorrt", "int8+fp16", "fp8", "fp16"]
    host: str = "local"
    architectures: tuple[str, ...] = ()
    formats: tuple[Format, ...] = ("fp32",)
    requires: tuple[str, ...] = ()
    gpu_architecture: str | None = None
    compute_capability: float | None = None
    tensorrt: VersionRange | None = None
    jetpack: VersionRange | None = None
    power_modes: tuple[PowerMode, ...] = ()
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def sm(self) -> str | None:
        """The compute capability as compilers write it: `sm_87`."""
        return None if self.compute_capability is None else f"sm_{self.sm_number}"

    @property
    def sm_number(self) -> int:
        """87 of compute capability 8.7; 0 without one."""
        return round(10 * (self.compute_capability or 0))

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Device:
        from edgekd.profile._schema import validate

        return validate(record)

    def fingerprint(self) -> str:
        """Content: another title, source or note of the same figures does not make another device."""
        return fingerprint(_without_prose(self.to_json()))


def _without_prose(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_prose(v) for k, v in value.items() if k not in ("title", "source", "note")}
    return [_without_prose(item) for item in value] if isinstance(value, list | tuple) else value


def version_parts(version: str) -> tuple[int, ...]:
    """(10, 3, 0) of "10.3.0": such tuples compare as versions do."""
    return tuple(map(int, version.split(".")))


def list_devices() -> list[Device]:
    """Every target in `profiles/`, by name."""
    return [load_device(name) for name in _names()]


def load_device(target: str) -> Device:
    """The target of that name, or the one that a user's own `./my-board.yaml` describes.

    Raises TargetError with the nearest names when there is none, or with the field of the file that is wrong.
    """
    from edgekd.profile._schema import read_profile

    if target.endswith(".yaml"):
        return read_profile(Path(target))
    names = _names()
    if target not in names:
        near = difflib.get_close_matches(target, names, n=3) or [name for name in names if target.lower() in name]
        known = f"Known: {', '.join(near)}. " if near else ""
        raise TargetError(
            f"target: unknown device {target!r}",
            f"{known}`edgekd targets` lists them all; a file of your own ends in .yaml.",
        )
    return read_profile(PROFILES / f"{target}.yaml")


def _names() -> list[str]:
    return sorted(file.stem for file in PROFILES.glob("*.yaml"))


def obstacle(device: Device) -> tuple[str, str] | None:
    """Why nothing can be measured for `device` from here, and what can be done; None where it can."""
    machine = platform.machine()
    if device.host != "local":
        return None
    if device.architectures and machine not in device.architectures:
        return (
            f"target {device.name} is for {', '.join(device.architectures)}, and this machine is {machine}",
            "Run it on such a machine, or choose another of `edgekd targets`.",
        )
    reason: tuple[str, str] | None = find(BACKENDS, "device.backend", device.backend).load()().unable(device)
    return reason


def search_obstacle(device: Device) -> tuple[str, str] | None:
    """Why no student can be searched and quantized by measurements on `device` from here; None where it can."""
    if device.host != "local":
        return (
            f"target {device.name} is at {device.host}, and students are searched by measuring this machine",
            f"Take {device.name} as target here; `edgekd profile` measures what comes of it there.",
        )
    if find(BACKENDS, "device.backend", device.backend).gpu:
        return (
            f"target {device.name}: students are searched by measuring processors, and it runs {device.backend!r}",
            "What can be done already: `edgekd compress --until distill` with a "
            "processor as target trains a student, `edgekd export RUN/distill --out DIR` writes its FP32 ONNX, "
            f"`edgekd spaces check SPACE STUDENT --target {device.name}` says whether its channels suit the target, "
            "and `edgekd profile` measures it there.",
        )
    return obstacle(device)


def scheme_for(device: Device, wanted: str | None) -> SchemeRow:
    """The quantization scheme `wanted`, or the device's own. Raises ConfigError where the device has no use for it."""
    row = find(SCHEMES, "quantize.scheme", wanted or device.scheme)
    runtime, fitting = SCHEMES[device.scheme].runtime, ", ".join(schemes(device))
    if row.runtime != runtime:
        raise ConfigError(
            f"quantize.scheme: {row.name} is for {row.runtime}, and {device.name} runs {runtime}",
            f"Choose of {fitting}, or null for {device.scheme}.",
        )
    missing = [name for name in row.formats if name not in device.formats]
    if missing:
        raise ConfigError(
            f"quantize.scheme: {row.name} needs {' and '.join(missing)}, which {device.sm or device.name} has not",
            f"Choose of {fitting}.",
        )
    return row


def schemes(device: Device) -> list[str]:
    """The names of the schemes whose runtime, number formats and opset `device` has."""
    runtime, formats, newest = SCHEMES[device.scheme].runtime, set(device.formats), _newest_opset(device)
    return [
        row.name
        for row in SCHEMES.values()
        if row.runtime == runtime and formats >= set(row.formats) and (newest is None or row.least_opset <= newest)
    ]


def opset_for(device: Device | None, scheme: str | None, wanted: int | None = None) -> int:
    """The opset to export with: `wanted`, or what the device takes and the scheme (None for FP32) needs.

    A Jetson gets what the oldest TensorRT of its JetPacks parses. Raises ConfigError where the scheme needs a newer
    opset than is wanted, or the device's newest TensorRT does not parse it.
    """
    needed = LEAST_OPSET if scheme is None else SCHEMES[scheme].least_opset
    if wanted is not None and wanted < needed:
        raise ConfigError(
            f"export.opset: {wanted}, and the scheme {scheme} needs {needed}", f"Set it to {needed} or to null."
        )
    usual, newest, span = OPSET, None, device.tensorrt if device is not None else None
    if device is not None and span is not None:
        newest = _newest_opset(device)
        usual = OPSET if device.jetpack is None else min(OPSET, parsed_opset(version_parts(span.min)))
    opset = wanted or max(usual, needed)
    if device is not None and span is not None and newest is not None and opset > newest:
        what = f"export.opset: {opset}" if wanted else f"quantize.scheme: {scheme} needs opset {opset}"
        raise ConfigError(
            f"{what}, and TensorRT {span.max}, the newest on {device.name}, parses up to {newest}",
            f"Set export.opset to null or {newest}." if wanted else f"Choose of {', '.join(schemes(device))}.",
        )
    return opset


def _newest_opset(device: Device) -> int | None:
    """What the device's newest TensorRT parses; None where no TensorRT runs there, or none is known as the last."""
    span = device.tensorrt
    return None if span is None or span.max is None else parsed_opset(version_parts(span.max))


def require_runnable(device: Device) -> None:
    """Raises TargetError where `obstacle` finds one."""
    _raise(obstacle(device))


def require_searchable(device: Device) -> None:
    """Raises TargetError where `search_obstacle` finds one."""
    _raise(search_obstacle(device))


def _raise(found: tuple[str, str] | None) -> None:
    if found is not None:
        raise TargetError(*found)


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


def device_identity(device: Device) -> dict[str, str]:
    """What must be equal for a latency to still hold: processor, instruction sets, cores, OS kind, runtime version.

    The same from call to call on one machine; it goes into fingerprints. No clock, load or host name is in it, except
    the address of a device over SSH: nothing else of it is known here.
    """
    if device.host != "local":
        return {"target": device.name, "backend": device.backend, "host": device.host}
    found = {
        "target": device.name,
        "backend": device.backend,
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "isa": " ".join(sorted(isa_features())),
        "cores": str(os.cpu_count()),
        "onnxruntime": package_version("onnxruntime") or package_version("onnxruntime-gpu") or "absent",
    }
    if find(BACKENDS, "device.backend", device.backend).gpu:
        found |= {name: package_version(name) or "absent" for name in _GPU_PACKAGES}
    return found
