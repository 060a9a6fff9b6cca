"""A thousand candidates by the default scorer: seconds on this machine, and the same winner on four processes.

    python benchmarks/search_speed.py [CONFIG]       # examples/cifar100.yaml

First with an empty latency table, which the search fills by measuring operators, then with that table in one process
and in four (torchrun).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _record import ROOT, record

EVALUATIONS = 1000
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def search(config: Path, out: Path, environment: dict[str, str], processes: int) -> dict[str, Any]:
    launcher = [*TORCHRUN, str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "edgekd", "search", str(config), "--out", str(out)]
    command += ["--set", f"search.evaluations={EVALUATIONS}"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((out / "search" / "search.json").read_text())
    return found


def main() -> None:
    config = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "examples" / "cifar100.yaml"
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        environment = {**os.environ, "EDGEKD_CACHE": str(scratch / "cache")}
        runs = {
            name: search(config, scratch / name, environment, processes)
            for name, processes in (("empty", 1), ("one", 1), ("four", 4))
        }
    one, four = runs["one"], runs["four"]
    figures = {
        "candidates": one["scored"],
        "seconds_empty_table": runs["empty"]["seconds"],
        "seconds": one["seconds"],
        "seconds_four_processes": four["seconds"],
        "chosen": one["chosen"]["name"],
        "chosen_by_four": four["chosen"]["name"],
        "same_ranking": [r["name"] for r in one["ranking"]] == [r["name"] for r in four["ranking"]],
    }
    record("search_speed", figures)
    for name, value in figures.items():
        print(f"{name:<24} {value}")


if __name__ == "__main__":
    main()
