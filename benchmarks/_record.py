"""One JSON line a benchmark run: command, versions, machine and figures, appended under benchmarks/results/."""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgekd.profile.machine import cpu_name, isa_features

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("edgekd", "torch", "torchao", "onnx", "onnxruntime", "numpy")


def record(name: str, figures: dict[str, Any], seed: int = 0) -> None:
    line = {
        "command": " ".join(["python", *map(_portable, sys.argv)]),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {package: version(package) for package in PACKAGES},
        "cpu": cpu_name(),
        "isa": sorted(isa_features()),
        "seed": seed,
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def lines(name: str) -> list[dict[str, Any]]:
    """What `record` has written under this name, the oldest first."""
    file = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _portable(word: str) -> str:
    """An absolute path as seen from the repository: where this machine keeps it says nothing to a reader."""
    return os.path.relpath(word, ROOT) if os.path.isabs(word) else word
