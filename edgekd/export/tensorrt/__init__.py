"""TensorRT behind one small contract: whichever of its builders is here makes an engine for a target.

Full TensorRT builds on the GPU that runs the engine: through its Python package (10, 11) or trtexec (8.2 to 11).
TensorRT-RTX builds for a list of GPUs on any machine. All of them run in a child process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgekd.describe.plan import PlanHeader, read_header, require_loadable
from edgekd.errors import ConfigError, TargetError
from edgekd.export.tensorrt import log as logs
from edgekd.export.tensorrt.checks import check_target, check_version
from edgekd.export.tensorrt.graph import OnnxGraph, read_graph
from edgekd.export.tensorrt.python import TensorRt, TensorRtRtx
from edgekd.export.tensorrt.request import BuildOptions, BuildRequest, parse_batch
from edgekd.export.tensorrt.trtexec import Trtexec
from edgekd.profile.device import Device, version_parts

__all__ = [
    "BUILDERS",
    "BuildOptions",
    "BuildRequest",
    "Builder",
    "Built",
    "OnnxGraph",
    "PlanHeader",
    "build",
    "choose",
    "parse_batch",
    "read_graph",
    "read_header",
    "require_loadable",
]


class Builder(Protocol):
    name: str
    runtime: str  # what loads its engines: tensorrt | tensorrt-rtx

    def version(self) -> str | None:
        """Three or four numbers, such as 10.3.0; None where it is not here."""
        ...

    def unable(self, device: Device) -> str | None:
        """Why it builds nothing for `device` here; None where it can."""
        ...

    def build(self, request: BuildRequest, plan: Path, log: Path) -> None:
        """Write an engine to `plan`, and what the builder says to `log`. Raises BackendError with its last words."""
        ...


BUILDERS: dict[str, Builder] = {builder.name: builder for builder in (TensorRt(), Trtexec(), TensorRtRtx())}


@dataclass(frozen=True)
class Built:
    """An engine and how it was made: `seconds` of the whole child process, `header` of the file it wrote."""

    builder: str
    version: str
    compute_capability: int
    seconds: float
    header: PlanHeader
    log: logs.BuildLog


def choose(device: Device, wanted: str | None = None) -> Builder:
    """The builder `wanted`, or the first that can build for `device` here.

    Raises TargetError with the reason of each that cannot.
    """
    if wanted is not None and wanted not in BUILDERS:
        raise ConfigError(f"--builder: unknown {wanted!r}", f"Choose of {', '.join(BUILDERS)}.")
    reasons = {}
    for builder in [BUILDERS[wanted]] if wanted is not None else BUILDERS.values():
        reason = builder.unable(device)
        if reason is None:
            return builder
        reasons[builder.name] = reason
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise TargetError(
        f"no engine for {device.name} can be built here ({why})",
        "Build it on the target; `edgekd build MODEL.onnx --target T --dry-run` writes the commands.",
    )


def build(request: BuildRequest, device: Device, builder: Builder, plan: Path, log: Path) -> Built:
    """Build an engine for `device` and check its file.

    Raises an InputError for what cannot be built, before a runtime is touched, and BackendError with the builder's
    words where it refuses.
    """
    check_target(request, device)
    version = builder.version() or ""
    if builder.runtime == "tensorrt":
        check_version(request, version_parts(version))
    elif request.version_compatible or request.hardware is not None or request.dla is not None:
        raise ConfigError(
            "--version-compatible, --hardware and --dla are for the full TensorRT", "Leave them out for TensorRT-RTX."
        )
    started = time.perf_counter()
    builder.build(request, plan, log)
    seconds = time.perf_counter() - started
    header = require_loadable(plan, builder.runtime, version, request.compute_capability)
    found = logs.parse(log.read_text(errors="replace"))
    return Built(builder.name, header.version, request.compute_capability, seconds, header, found)
