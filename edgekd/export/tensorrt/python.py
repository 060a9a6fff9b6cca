"""TensorRT through its Python packages, in a child process: `tensorrt` 10 and 11, and `tensorrt_rtx`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekd.errors import BackendError
from edgekd.export.tensorrt._process import run
from edgekd.export.tensorrt.log import last_lines
from edgekd.export.tensorrt.request import BuildRequest
from edgekd.profile.device import Device
from edgekd.profile.driver import other_gpu

CHILD = Path(__file__).with_name("_child.py")
RTX_SMS = (75, 80, 86, 89, 120, 121)  # Turing, A100, Ampere, Ada, Blackwell; not Orin, Hopper or Thor
_HARDWARE = {None: None, "ampere+": "AMPERE_PLUS", "same": "SAME_COMPUTE_CAPABILITY"}


@cache
def _version(module: str) -> tuple[str | None, str]:
    """The version a package gives itself, and why there is none."""
    if find_spec(module) is None:
        return None, f"the Python package {module} is not installed"
    command = [sys.executable, str(CHILD), module, "version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    numbers = re.findall(r"\d+", done.stdout)[:4] if done.returncode == 0 else []
    return ".".join(numbers) or None, f"the Python package {module} does not load: {last_lines(done.stderr, 1)}"


class TensorRt:
    """Builder `tensorrt`: engines of the full TensorRT 10 or 11, on the GPU they are for."""

    name = "tensorrt"
    runtime = "tensorrt"
    module = "tensorrt"

    def version(self) -> str | None:
        return _version(self.module)[0]

    def unable(self, device: Device) -> str | None:
        version, why = _version(self.module)
        if version is None:
            return why
        if int(version.split(".")[0]) < 10:
            return f"the Python package tensorrt is {version}, and 10 is the first this uses; trtexec takes older ones"
        return other_gpu(device)

    def build(self, request: BuildRequest, plan: Path, log: Path) -> None:
        version, why = _version(self.module)
        if version is None:
            raise BackendError(why, "Install it, or name another --builder.")
        command = [sys.executable, str(CHILD), self.module]
        words = json.dumps(self._words(request, plan, int(version.split(".")[0])))
        run(command, plan, log, f"{self.name} {version} on {request.graph.path.name}", words)

    def _words(self, request: BuildRequest, plan: Path, major: int) -> dict[str, Any]:
        """The request as the child reads it."""
        formats, batches = request.graph.formats, request.batch or ()
        typed = major < 11 and request.graph.typed and request.dla is None
        flags = ["VERSION_COMPATIBLE"] if request.version_compatible else []
        if request.dla is not None:
            flags.append("GPU_FALLBACK")
        if major < 11 and not typed:
            flags += ["INT8"] if "int8" in formats else []
            flags += ["FP16"] if formats & {"int8", "fp16"} or request.dla is not None else []
        profile = [request.shapes(batch) for batch in batches]
        return {
            "onnx": str(request.graph.path),
            "plan": str(plan),
            "shapes": {name: [shapes[name] for shapes in profile] for name in (profile[0] if profile else ())},
            "strongly_typed": typed,
            "flags": flags,
            "compute_capability": None,
            "workspace": request.workspace,
            "hardware": _HARDWARE[request.hardware],
            "timing_cache": None if request.timing_cache is None else str(request.timing_cache),
            "dla": request.dla,
        }


class TensorRtRtx(TensorRt):
    """Builder `tensorrt-rtx`: engines of TensorRT-RTX, for its list of GPUs, and without one at hand.

    It compiles ahead of time and times nothing: the same graph gives the same bytes.
    """

    name = "tensorrt-rtx"
    runtime = "tensorrt-rtx"
    module = "tensorrt_rtx"

    def unable(self, device: Device) -> str | None:
        version, why = _version(self.module)
        if version is None:
            return f"{why}: pip install 'edgekd[tensorrt-rtx]'"
        if device.sm_number not in RTX_SMS:
            return f"TensorRT-RTX builds nothing for {device.sm}"
        return None

    def _words(self, request: BuildRequest, plan: Path, major: int) -> dict[str, Any]:
        words = super()._words(request, plan, 11)
        return {**words, "compute_capability": request.compute_capability, "timing_cache": None}
