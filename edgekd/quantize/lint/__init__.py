"""Does an INT8 graph run in INT8? A lint of the exported Q/DQ graph, and of what its runtime makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import onnx

from edgekd.profile.device import Device
from edgekd.quantize.lint import executed, placed
from edgekd.quantize.lint.rules import Finding, findings, formats

WORDS = {"conv": "convolutions", "add": "adds", "gemm": "linear layers"}
SHOWN = 6  # operators of an island, nodes that break one rule


@dataclass(frozen=True)
class LintReport:
    """Pairs are [in integers, of all that were exported]: executed so by ONNX Runtime, or ready to be by TensorRT.

    `float_islands` lists the connected float operators between them, such as `ReduceMean+Softmax`; `problems` says what
    is wrong with the exported graph, a line each.
    """

    conv: tuple[int, int]
    add: tuple[int, int]
    gemm: tuple[int, int]
    float_islands: tuple[str, ...]
    problems: tuple[str, ...]
    format: str = "INT8"  # of most of its Q/DQ

    @property
    def line(self) -> str:
        """`20/20 convolutions INT8, 9/9 adds, 1/1 linear layers, 0 float islands`."""
        counts = [f"{n}/{of} {word}" for kind, word in WORDS.items() for n, of in [getattr(self, kind)] if of]
        first, *others = counts or ["nothing"]
        return ", ".join([f"{first} {self.format}", *others, f"{len(self.float_islands)} float islands"])

    @property
    def clean(self) -> bool:
        """Nothing is wrong with the graph; some of it may be float."""
        return not self.problems

    @property
    def ok(self) -> bool:
        """Clean, and all of it in integers."""
        whole = all(n == of for n, of in (self.conv, self.add, self.gemm))
        return whole and not self.problems and not self.float_islands

    def to_json(self) -> dict[str, Any]:
        record = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {**record, "line": self.line, "ok": self.ok}


def lint(
    path: Path | str, runtime: str = "onnxruntime", *, waived: Sequence[str] = (), device: Device | None = None
) -> LintReport:
    """Lint any ONNX file for a runtime, onnxruntime or tensorrt, but for the rules `waived`.

    With `device`, its number formats are looked at too.

    Raises BackendError when ONNX Runtime does not take it.
    """
    exported = onnx.load(str(path), load_external_data=False)
    external = [t.name for t in exported.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    if external:
        problems = [f"{len(external)} tensors lie outside the file, such as {external[0]}"]
    else:
        problems = _problems([found for found in findings(exported, runtime) if found.rule not in waived])
        if device is not None:
            problems += _formats(exported, device)
    if runtime == "onnxruntime":
        run = executed.optimised(Path(path))
        counts, islands = executed.counts(exported, run), executed.islands(run)
    else:
        counts, islands = placed.counts(exported), placed.islands(exported)
    found = formats(exported)
    return LintReport(
        **counts,
        float_islands=tuple(map(_name, islands)),
        problems=tuple(problems),
        format=max(found, key=lambda name: found[name]).upper() if found else "INT8",
    )


def _problems(found: Sequence[Finding]) -> list[str]:
    """A line each, of one rule the first `SHOWN` in full."""
    lines: list[str] = []
    for _, same in groupby(found, key=lambda finding: finding.rule):
        group = list(same)
        lines += map(str, group[:SHOWN])
        if len(group) > SHOWN:
            lines.append(f"{len(group) - SHOWN} more like the last, such as {group[-1].node}")
    return lines


def _formats(exported: Any, device: Device) -> list[str]:
    return [
        f"{count} Q/DQ of {name}, a format that {device.sm or device.name} has not"
        for name, count in formats(exported).items()
        if name not in device.formats
    ]


def _name(operators: list[str]) -> str:
    shown = operators if len(operators) <= SHOWN else [*operators[:SHOWN], f"{len(operators) - SHOWN} more"]
    return "+".join(shown)
