"""A profile's YAML as a Device; what is wrong in it is one error that names the file and the field."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from edgekd.errors import TargetError
from edgekd.profile.device import PROFILES, UNITS, Device, Figure, PowerMode, VersionRange, version_parts

# The compute capability from which on a GPU takes a format. TensorRT-RTX refuses FP8 for sm_86; the others from memory.
_SINCE = {"fp16": 5.3, "int8": 6.1, "int4": 7.5, "bf16": 8.0, "fp8": 8.9, "fp4": 10.0}

_SECTIONS = {"figures": Figure, "power_modes": PowerMode, "tensorrt": VersionRange, "jetpack": VersionRange}
_FIX = f"Compare it with those in {PROFILES}."
_SOURCE_FIX = "Write the document the figure is from, or `from memory`."


def read_profile(file: Path) -> Device:
    """The device that `file` describes, called by the file's name. Raises TargetError."""
    record = _read_yaml(file)
    if "name" in record:
        raise TargetError(f"{file}: name is not a key", f"The target is called {file.stem}, as the file is.")
    try:
        device = Device.from_json({**record, "name": file.stem})
    except ValidationError as error:
        raise _explain(error, file) from None
    for where, what, fix in _contradictions(device):
        raise TargetError(f"{file}: {where}: {what}", fix)
    return device


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        record = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise TargetError(f"target: cannot read {file}: {error.strerror}", "Name a profile's YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TargetError(f"{file} is not YAML: {error}", _FIX) from None
    if not isinstance(record, dict):
        raise TargetError(f"{file} holds no keys", _FIX)
    return record


def _explain(error: ValidationError, file: Path) -> TargetError:
    """The first field that is wrong, and the nearest key that exists."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return TargetError(f"{file}: {where} is required", _SOURCE_FIX if where.endswith(".source") else _FIX)
    if first["type"] == "unexpected_keyword_argument":
        section = _SECTIONS.get(str(first["loc"][0]), Device)
        known = [f.name for f in fields(section) if section is not Device or f.name != "name"]
        return TargetError(f"{file}: unknown key {where}", _nearest(str(first["loc"][-1]), known))
    hint = "Put it in quotes: YAML reads 10.10 as the number 10.1." if first["type"] == "string_type" else _FIX
    return TargetError(f"{file}: {where}: {first['msg']}, got {first['input']!r}", hint)


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(known)}."


def _contradictions(device: Device) -> Iterator[tuple[str, str, str]]:
    """(field, what is wrong, what to do) where types alone do not say it."""
    for name, figure in device.figures.items():
        where = f"figures.{name}"
        if name not in UNITS:
            yield where, "there is no such figure", _nearest(name, list(UNITS))
        elif figure.unit != UNITS[name]:
            yield f"{where}.unit", f"{figure.unit!r} is not {UNITS[name]}", f"Convert the value to {UNITS[name]}."
        elif not math.isfinite(figure.value) or figure.value < 0 or (figure.value == 0 and figure.unit != "cores"):
            yield f"{where}.value", f"{figure.value:g} is no {name.replace('_', ' ')}", "Correct it, or leave it out."
    sourced = {f"figures.{name}": figure.source for name, figure in device.figures.items()}
    sourced |= {f"power_modes.{i}": mode.source for i, mode in enumerate(device.power_modes)}
    sourced |= {"tensorrt": device.tensorrt.source} if device.tensorrt is not None else {}
    sourced |= {"jetpack": device.jetpack.source} if device.jetpack is not None else {}
    for where, source in sourced.items():
        if not source.strip():
            yield f"{where}.source", "it is empty", _SOURCE_FIX
    for where, versions in (("tensorrt", device.tensorrt), ("jetpack", device.jetpack)):
        bounds = [v for v in (versions.min, versions.max) if v is not None] if versions is not None else []
        for bound in bounds:
            if not re.fullmatch(r"\d+(\.\d+)*", bound):
                yield where, f"{bound!r} is not a version", 'Write numbers and points: "10.3.0".'
        if bounds != sorted(bounds, key=version_parts):
            yield where, f"min {bounds[0]} is above max {bounds[1]}", "Exchange them."
    if device.kind != "cpu" and device.compute_capability is None:
        yield "compute_capability", f"a {device.kind} needs one", "Write that of its GPU, such as 8.7."
    if device.kind == "jetson" and device.jetpack is None:
        yield "jetpack", "a jetson needs it", 'Write its releases: {min: "6.0", max: "6.2", source: ...}.'
    for name in device.formats:
        since = _SINCE.get(name, 0.0)
        if device.compute_capability is not None and device.compute_capability < since:
            yield "formats", f"{name} needs compute capability {since}, not {device.compute_capability}", "Take it out."
