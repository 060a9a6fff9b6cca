"""What a target is: one Device, as a profile describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekd.artifacts import Artifact
from edgekd.stage import fingerprint

if TYPE_CHECKING:
    from pydantic import TypeAdapter

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
        """Raises pydantic's ValidationError, each field by itself."""
        return _adapter().validate_python(record)

    def fingerprint(self) -> str:
        """Content: another title, source or note of the same figures does not make another device."""
        return fingerprint(_without_prose(self.to_json()))


@cache
def _adapter() -> TypeAdapter[Device]:
    from pydantic import TypeAdapter

    return TypeAdapter(Device)


def _without_prose(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_prose(v) for k, v in value.items() if k not in ("title", "source", "note")}
    return [_without_prose(item) for item in value] if isinstance(value, list | tuple) else value


def version_parts(version: str) -> tuple[int, ...]:
    """(10, 3, 0) of "10.3.0": such tuples compare as versions do."""
    return tuple(map(int, version.split(".")))
