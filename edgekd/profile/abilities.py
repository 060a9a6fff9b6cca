"""What can be done for a device, from here and on it: measuring, searching, quantization schemes, opsets."""

from __future__ import annotations

import platform

from edgekd.catalog import BACKENDS, LEAST_OPSET, OPSET, SCHEMES, SchemeRow, find, parsed_opset
from edgekd.errors import ConfigError, TargetError
from edgekd.profile.device import Device, version_parts


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
