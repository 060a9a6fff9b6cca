"""The header of a serialized engine ("plan"), read without a GPU and without TensorRT.

Offsets are those of NVIDIA's own `trtexec --getPlanVersionOnly`, which reads 28 bytes; the size at 16 and the mask of
SMs in TensorRT-RTX's longer header were read off engines of TensorRT 8.6.1 and TensorRT-RTX 1.7.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import ModelError

MAGIC = {b"ftrt": "tensorrt", b"vtrt": "tensorrt-rtx"}
HEADER = 36  # bytes, of the longer one
RTX_SMS = {1: 75, 2: 80, 4: 86, 8: 89, 16: 120, 32: 121}
NEXT_MAJORS = {8: (9, 10), 9: (10,), 10: (11,)}  # that load version-compatible engines of a major version
REBUILD = "An engine fits one TensorRT and one GPU: build it again there from its ONNX file."


@dataclass(frozen=True)
class PlanHeader:
    """What loads an engine: `runtime` (tensorrt | tensorrt-rtx) in `version`, four numbers.

    `compute_capabilities`, 86 for sm_86, are those it was built for; None where the header does not say.
    """

    runtime: str
    version: str
    bytes: int
    compute_capabilities: tuple[int, ...] | None


def read_header(path: Path) -> PlanHeader:
    """The header of an engine file. Raises ModelError for a file that is none, or is cut off."""
    if not path.is_file():
        raise ModelError(f"{path} {'is a directory' if path.is_dir() else 'does not exist'}", "Name an engine file.")
    with path.open("rb") as file:
        head = file.read(HEADER)
    if head[:4] not in MAGIC:
        raise ModelError(
            f"{path} is not a TensorRT engine: it begins with {head[:4]!r}", "Name a file that edgekd build wrote."
        )
    if len(head) < HEADER:
        raise ModelError(f"{path} is cut off after {len(head)} bytes, in its header", "Copy or build it again.")
    serialization, size = struct.unpack_from("<4xI8xQ", head)
    if serialization != 0:
        raise ModelError(f"{path} is an engine in serialization {serialization}, which is not known here", REBUILD)
    found = path.stat().st_size
    if size != found:
        raise ModelError(
            f"{path} is cut off or was added to: its header says {size} bytes, and it has {found}",
            "Copy it again, or build it again from its ONNX file.",
        )
    runtime = MAGIC[head[:4]]
    mask = struct.unpack_from("<I", head, 32)[0]
    sms = tuple(sm for bit, sm in RTX_SMS.items() if mask & bit) if runtime == "tensorrt-rtx" else None
    return PlanHeader(runtime, ".".join(map(str, head[24:28])), size, sms)


def require_loadable(
    path: Path, runtime: str, version: str, compute_capability: int, *, version_compatible: bool = False
) -> PlanHeader:
    """The header of an engine that `runtime` in `version` can load on sm_`compute_capability`; else raises ModelError.

    Engines fit the version that built them, in as many numbers as `version` has. `version_compatible` ones, of 8.6 or
    later, also fit newer versions of the same major number and of the next (8: of 9 and 10).
    """
    header = read_header(path)
    if header.runtime != runtime:
        raise ModelError(f"{path} is an engine of {header.runtime} {header.version}, and {runtime} is here", REBUILD)
    built, here = _numbers(header.version), _numbers(version)
    follows = built[: len(here)] <= here if here[0] == built[0] else here[0] in NEXT_MAJORS.get(built[0], ())
    newer = version_compatible and built >= (8, 6) and follows
    if built[: len(here)] != here and not newer:
        raise ModelError(f"{path} was built by {header.runtime} {header.version}, and {version} is here", REBUILD)
    if header.compute_capabilities is not None and compute_capability not in header.compute_capabilities:
        names = ", ".join(f"sm_{sm}" for sm in header.compute_capabilities) or "no GPU known here"
        raise ModelError(f"{path} was built for {names}, and this is sm_{compute_capability}", REBUILD)
    return header


def not_onnx(path: Path, error: Exception) -> ModelError:
    """The error for a file that is no ONNX, which says so where it is an engine, or a part of one."""
    with path.open("rb") as file:
        if file.read(4) not in MAGIC:
            return ModelError(f"{path} is not an ONNX file: {error}", "Name an .onnx file that export wrote.")
    header = read_header(path)
    return ModelError(f"{path} is an engine of {header.runtime} {header.version}", "Name the ONNX file it is from.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
