"""One JSON line a benchmark run: command, versions, machine and figures, appended under benchmarks/results/."""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgekd.profile.devices import cpu_name, isa_features

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("edgekd", "torch", "torchao", "onnx", "onnxruntime", "numpy")


def record(name: str, figures: dict[str, Any], seed: int = 0) -> None:
    line = {
        "command": " ".join(["python", Path(sys.argv[0]).as_posix(), *sys.argv[1:]]),
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
