"""TensorRT-RTX: NVIDIA's own parser and builder, which make engines without a GPU. A judge of exported graphs.

Both run in a child process, so that a crash in them is an error here and no dead program.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekd.errors import BackendError
from edgekd.profile.devices import Device

COMPUTE_CAPABILITIES = (75, 80, 86, 89, 120, 121)  # Turing, A100, Ampere, Ada, Blackwell; not Orin, Hopper or Thor
PATIENCE_S = 1800


@dataclass(frozen=True)
class RtxBuild:
    """An engine for one compute capability: bytes of the plan, seconds, and the builder's warnings."""

    compute_capability: int
    plan_bytes: int
    seconds: float
    version: str
    warnings: tuple[str, ...]


def available() -> bool:
    return find_spec("tensorrt_rtx") is not None


def unable(device: Device) -> str | None:
    """Why no engine can be built for `device`; None where one can."""
    if not available():
        return "TensorRT-RTX is not installed: pip install 'edgekd[tensorrt-rtx]'"
    if round(10 * (device.compute_capability or 0)) not in COMPUTE_CAPABILITIES:
        return f"TensorRT-RTX builds nothing for {device.sm}"
    return None


def build(
    onnx: Path, compute_capability: int, plan: Path | None = None, batch: tuple[int, int, int] = (1, 1, 1)
) -> RtxBuild:
    """Parse and build `onnx`; a dynamic batch gets the least, usual and largest of `batch`.

    Writes the engine to `plan` where one is given. Raises BackendError with NVIDIA's words where it refuses.
    """
    if not available():
        raise BackendError("TensorRT-RTX is not installed", "Run pip install 'edgekd[tensorrt-rtx]'.")
    if compute_capability not in COMPUTE_CAPABILITIES:
        known = ", ".join(map(str, COMPUTE_CAPABILITIES))
        raise BackendError(f"TensorRT-RTX builds nothing for sm_{compute_capability}", f"It builds for {known}.")
    request = {
        "onnx": str(onnx),
        "plan": None if plan is None else str(plan),
        "compute_capability": compute_capability,
        "batch": batch,
    }
    done = subprocess.run(
        [sys.executable, "-m", "edgekd.export._rtx_child"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise BackendError(f"TensorRT-RTX ended with exit code {done.returncode} on {onnx}: {last[0]}", "Report it.")
    answer: dict[str, Any] = json.loads(done.stdout)
    if answer["errors"]:
        raise BackendError(
            f"TensorRT-RTX refused {onnx.name} for sm_{compute_capability}: {'; '.join(answer['errors'][:3])}",
            "Run edgekd lint on it.",
        )
    figures = (answer["plan_bytes"], answer["seconds"], answer["version"], tuple(answer["warnings"]))
    return RtxBuild(compute_capability, *figures)
