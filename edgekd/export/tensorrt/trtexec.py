"""trtexec: NVIDIA's own builder and timer on the command line, 8.2 to 11. Its flags are a function of its version.

Read from samples/common/sampleOptions.cpp of NVIDIA/TensorRT's release branches 8.2 to 8.6 and tags v10.0.0 to v11.1.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

from edgekd.errors import BackendError
from edgekd.export.tensorrt._process import run
from edgekd.export.tensorrt.log import last_lines, parse
from edgekd.export.tensorrt.request import BuildRequest
from edgekd.profile.device import Device
from edgekd.profile.driver import other_gpu

PLACE = Path("/usr/src/tensorrt/bin/trtexec")  # of NVIDIA's packages for Jetson and Debian, which is not on PATH

Version = tuple[int, ...]


def build_arguments(version: Version, request: BuildRequest, plan: Path | str) -> list[str]:
    """The arguments, without the program, that build `plan`; `request` has passed `check_version`."""
    arguments = [f"--onnx={request.graph.path}", f"--saveEngine={plan}", *_precision(version, request)]
    if request.batch is not None:
        for name, batch in zip(("min", "opt", "max"), request.batch, strict=True):
            arguments.append(f"--{name}Shapes={_shapes(request, batch)}")
    if request.workspace is not None:
        pool = version >= (8, 4)
        arguments.append(f"--memPoolSize=workspace:{request.workspace}" if pool else f"--workspace={request.workspace}")
    if request.timing_cache is not None:
        arguments.append(f"--timingCacheFile={request.timing_cache}")
    if request.version_compatible:
        arguments.append("--versionCompatible")
    if request.hardware is not None:
        level = {"ampere+": "ampere+", "same": "sameComputeCapability"}[request.hardware]
        arguments.append(f"--hardwareCompatibilityLevel={level}")
    if request.dla is not None:
        arguments += [f"--useDLACore={request.dla}", "--allowGPUFallback"]
    return [*arguments, "--skipInference" if version >= (8, 6) else "--buildOnly"]


def timing_arguments(
    version: Version,
    request: BuildRequest,
    plan: Path | str,
    *,
    batch: int = 1,
    transfers: bool = True,
    cuda_graph: bool = False,
    seconds: int = 3,
    warmup_ms: int = 200,
    times: Path | str | None = None,
) -> list[str]:
    """The arguments that time an engine; every one means the same in every version.

    TensorRT 11 turned its defaults round: it leaves out the transfers, records a CUDA graph and waits actively, where
    10 and before do none of it unless asked. `times` is a JSON file for every sample.
    """
    arguments = [f"--loadEngine={plan}"]
    if request.batch is not None:
        arguments.append(f"--shapes={_shapes(request, batch)}")
    if version >= (11,):
        arguments += ["--includeDataTransfers"] if transfers else []
        arguments += [] if cuda_graph else ["--noCudaGraph"]
    else:
        arguments += [] if transfers else ["--noDataTransfers"]
        arguments += ["--useCudaGraph"] if cuda_graph else []
        arguments.append("--useSpinWait")
    arguments += [f"--warmUp={warmup_ms}", f"--duration={seconds}"]
    if request.dla is not None:
        arguments.append(f"--useDLACore={request.dla}")
    return [*arguments, *([f"--exportTimes={times}"] if times is not None else [])]


def _precision(version: Version, request: BuildRequest) -> list[str]:
    """What 11 reads from the graph alone; before, a typed graph is taken by its word, an FP32 one with INT8 is not.

    The rest of an INT8 graph may be FP16 there: in FP32 it would be slower than FP16 throughout. A DLA has no FP32.
    """
    formats = request.graph.formats
    if version >= (11,):
        return []
    if request.graph.typed and version >= (10,) and request.dla is None:
        return ["--stronglyTyped"]
    if "int8" in formats:
        return ["--int8", "--fp16"]
    return ["--fp16"] if "fp16" in formats or request.dla is not None else []


def _shapes(request: BuildRequest, batch: int) -> str:
    """`images:8x3x32x32,...`; names with a colon or a comma in quotes, which trtexec takes off."""
    parts = []
    for name, shape in request.shapes(batch).items():
        quoted = f"'{name}'" if {":", ","} & set(name) else name
        parts.append(f"{quoted}:{'x'.join(map(str, shape))}")
    return ",".join(parts)


def program(device: Device) -> str:
    """What to type on `device`."""
    return str(PLACE) if device.kind == "jetson" else PLACE.name


@cache
def _found() -> tuple[str | None, Version | None, str]:
    """The program, its version, and why there is none."""
    found = shutil.which(PLACE.name) or (str(PLACE) if PLACE.is_file() else None)
    if found is None:
        return None, None, "it is not on the PATH; it comes with TensorRT"
    try:
        done = subprocess.run([found, "--help"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return found, None, f"{found} does not run: {error}"
    version = parse(done.stdout + done.stderr).version
    return found, version, f"{found} does not say its version: {last_lines(done.stdout + done.stderr, 1)}"


def found_program() -> tuple[str, Version]:
    """The program and its version. Raises BackendError where there is none."""
    found, version, why = _found()
    if found is None or version is None:
        raise BackendError(f"trtexec: {why}", "Install TensorRT, or add its bin directory to PATH.")
    return found, version


class Trtexec:
    """Builder `trtexec`: engines of the full TensorRT, on the GPU they are for."""

    name = "trtexec"
    runtime = "tensorrt"

    def version(self) -> str | None:
        found = _found()[1]
        return None if found is None else ".".join(map(str, found))

    def unable(self, device: Device) -> str | None:
        _, version, why = _found()
        return why if version is None else other_gpu(device)

    def build(self, request: BuildRequest, plan: Path, log: Path) -> None:
        found, version = found_program()
        command = [found, *build_arguments(version, request, plan)]
        run(command, plan, log, f"trtexec {self.version()} on {request.graph.path.name}")
