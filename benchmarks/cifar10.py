"""The CIFAR-10 example from nothing, again, and with the profile forced: seconds, ledger, latency.

    python benchmarks/cifar10.py RUN       # RUN must not exist; up to an hour on two cores

The latency table is filled anew too. Accuracy and latency are read from the run's report.json, where every figure comes
from the files in RUN.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _record import record

EXAMPLE = Path(__file__).parent.parent / "examples" / "cifar10.yaml"
WEIGHTS = ("distill/model.safetensors", "quantize/model.safetensors", "export/student-int8.onnx")


def timed(out: Path, environment: dict[str, str], *options: str) -> tuple[float, dict[str, Any]]:
    begun = time.perf_counter()
    command = [sys.executable, "-m", "edgekd", "compress", str(EXAMPLE), "--out", str(out), *options]
    subprocess.run(command, env=environment, check=True)
    return time.perf_counter() - begun, json.loads((out / "report.json").read_text())


def stamps(out: Path) -> dict[str, tuple[int, str]]:
    """When each file of weights was written, and its bytes."""
    files = {file: out / file for file in WEIGHTS}
    return {name: (f.stat().st_mtime_ns, hashlib.sha256(f.read_bytes()).hexdigest()) for name, f in files.items()}


def fresh(report: dict[str, Any]) -> list[str]:
    return [stage["name"] for stage in report["stages"] if not stage["cached"]]


def main() -> None:
    out = Path(sys.argv[1])
    if out.exists():
        raise SystemExit(f"{out} exists; a clean run needs a new directory")
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "EDGEKD_CACHE": cache}
        clean_s, report = timed(out, environment)
        before = stamps(out)
        again_s, again = timed(out, environment)
        forced_s, forced = timed(out, environment, "--force", "profile")
    top1 = {row["artifact"]: row["value"] for row in report["ledger"]}
    p50 = {row["artifact"]: row["p50_ms"] for row in report["latency"] if row["batch"] == 1}
    chosen = report["search"]["chosen"]
    figures = {
        "student": chosen["name"],
        "params": chosen["params"],
        "macs": chosen["macs"],
        "seconds": clean_s,
        "stage_seconds": {stage["name"]: stage["seconds"] for stage in report["stages"]},
        "top1": top1,
        "p50_ms": p50,
        "teacher_over_int8": p50["teacher"] / p50["onnx-int8"],
        "fp32_over_int8": p50["onnx-fp32"] / p50["onnx-int8"],
        "lint": report["lint"],
        "again_seconds": again_s,
        "again_ran": fresh(again),
        "forced_seconds": forced_s,
        "forced_ran": fresh(forced),
        "weights_untouched": stamps(out) == before,
    }
    record("cifar10", figures, report["config"]["seed"])
    for name, value in figures.items():
        print(f"{name:<20} {value}")


if __name__ == "__main__":
    main()
