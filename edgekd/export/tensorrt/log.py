"""What a build log says: of trtexec 8.2 to 11, and of TensorRT's builder in our own child process, in the same form.

Lines are `[date] [I] [TRT] text`, the date and [TRT] (the library, not the tool) where they are; I, W, E are
information, warning and error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"^(?:\[[\d/:-]+\] )?\[([VIWEF])\] (?:\[TRT\] )?(.*)$")
_BANNER = re.compile(r"&&&& (RUNNING|PASSED|FAILED) TensorRT\.trtexec \[TensorRT v(\d+)\]")
_FIGURES = {
    "parse_seconds": r"Finished parsing network model\. Parse time: ([\d.eE+-]+)",
    "build_seconds": r"Engine built in ([\d.eE+-]+) sec",
    "generation_seconds": r"Engine generation completed in ([\d.eE+-]+) seconds",
    "engine_mib": r"Created engine with size: ([\d.eE+-]+) MiB",
    "weights_bytes": r"Total Weights Memory: (\d+)(?: bytes)?$",
    "activation_bytes": r"Total Activation Memory: (\d+)(?: bytes)?$",
    "scratch_bytes": r"(?:Total|Max) Scratch Memory: (\d+)(?: bytes)?$",
    "peak_cpu_mib": r"Peak memory usage of TRT CPU/GPU memory allocators: CPU (\d+) MiB",
    "peak_gpu_mib": r"Peak memory usage of TRT CPU/GPU memory allocators: CPU \d+ MiB, GPU (\d+) MiB",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _FIGURES.items()}


@dataclass(frozen=True)
class BuildLog:
    """`version` is trtexec's, (8, 5, 2), `passed` its own verdict; both are None where trtexec did not speak.

    `figures` are what the builder reports, in s, MiB and bytes as their names say, as far as its version does.
    `warnings` and `errors` are each listed once, in order.
    """

    version: tuple[int, int, int] | None
    passed: bool | None
    figures: dict[str, float]
    warnings: tuple[str, ...]
    errors: tuple[str, ...]


def parse(text: str) -> BuildLog:
    """Read a whole log, or what there is of one."""
    version, passed, figures = None, None, {}
    warnings: dict[str, None] = {}
    errors: dict[str, None] = {}
    for line in text.splitlines():
        banner = _BANNER.search(line)
        if banner is not None:
            version = trtexec_version(banner[2])
            passed = {"RUNNING": passed, "PASSED": True, "FAILED": False}[banner[1]]
            continue
        found = _LINE.match(line.strip())
        if found is None:
            continue
        level, said = found[1], found[2].strip()
        if level in "WEF" and said:
            (warnings if level == "W" else errors)[said] = None
        for name, pattern in _PATTERNS.items():
            match = pattern.search(said)
            if match is not None:
                figures[name] = float(match[1])
    return BuildLog(version, passed, figures, tuple(warnings), tuple(errors))


def trtexec_version(digits: str) -> tuple[int, int, int]:
    """(8, 5, 2) of the banner's 8502, (10, 3, 0) of 100300: thousands before TensorRT 10, ten thousands since."""
    number = int(digits)
    base = 1000 if number < 100_000 else 10_000
    return number // base, number % base // 100, number % 100


def last_lines(text: str, count: int = 5) -> str:
    """The end of a log, for an error message: its last errors where there are some, else its last lines."""
    lines = parse(text).errors[-count:] or tuple(line.strip() for line in text.splitlines() if line.strip())[-count:]
    return " | ".join(lines) or "it said nothing"
