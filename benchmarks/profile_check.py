"""Can `edgekd profile` be trusted? Against another loop, against itself, beside a busy neighbour, and what it costs.

    python benchmarks/profile_check.py agreement    p50 against benchmarks/_latency_loop.py, in turns, four models
    python benchmarks/profile_check.py repeat       20 runs: do their medians agree, and who warns of what
    python benchmarks/profile_check.py overhead     wall time outside the runtime, with a graph of 1,000 nodes

Run it on a machine that does nothing else. With --dry nothing is recorded, for a first try with small counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from _record import record
from onnx import TensorProto, helper, numpy_helper, save

from edgekd.profile.graphs import build_network
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace

LOOP = Path(__file__).with_name("_latency_loop.py")
NODES = 1000
HOG = "import numpy\na = numpy.ones((512, 512), numpy.float32)\nwhile True: a @ a"


def models(directory: Path) -> dict[str, Path]:
    """A small and a larger network in FP32 and INT8, random weights: how long they take does not hang on them."""
    found = {}
    for name, (depths, widths) in {
        "ResNet-8": ((1, 1, 1), (16, 32, 64)),
        "ResNet-32": ((5, 5, 5), (16, 32, 64)),
    }.items():
        network = CifarResNetSpace(10, (3, 32, 32)).network(Genotype(depths=depths, widths=widths))
        for precision in ("fp32", "int8"):
            path = directory / f"{name}-{precision}.onnx"
            path.write_bytes(build_network(network, precision))
            found[f"{name} {precision.upper()}"] = path
    return found


def many_nodes(path: Path) -> Path:
    """1,000 convolutions one after another, which no runtime fuses."""
    random = np.random.default_rng(0)
    weights = [random.standard_normal((8, 8, 3, 3)).astype(np.float32) / 9 for _ in range(NODES)]
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("batch", 8, 8, 8)) for n in ("images", "t1000")]
    nodes = [
        helper.make_node("Conv", ["images" if i == 0 else f"t{i}", f"w{i}"], [f"t{i + 1}"], f"conv{i}", pads=[1] * 4)
        for i in range(NODES)
    ]
    constants = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "chain", io[:1], io[1:], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def ours(model: Path, target: str, seconds: float, *words: str) -> dict[str, Any]:
    """The row of `edgekd profile`, as anybody runs it."""
    command = [
        sys.executable,
        "-m",
        "edgekd",
        "profile",
        model,
        "--target",
        target,
        "--seconds",
        str(seconds),
        "--json",
    ]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
    (row,) = json.loads(done.stdout)
    found: dict[str, Any] = row
    return found


def theirs(model: Path, cores: list[int], calls: int) -> float:
    """p50 in ms by the other loop, on the same cores."""
    command = [sys.executable, LOOP, model, ",".join(map(str, cores)), str(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    p50: float = json.loads(done.stdout)["p50_ms"]
    return p50


@contextmanager
def busy() -> Iterator[None]:
    """A process a core that multiplies matrices, as stress-ng would."""
    hogs = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(os.cpu_count() or 1)]
    time.sleep(1)
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def agreement(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Ratios of the medians, ours over theirs, with who is first in turns."""
    rows = []
    for name, model in models(scratch).items():
        ratios, cores, calls = [], [0], 200
        for turn in range(arguments.alternations):
            if turn % 2:
                loop = theirs(model, cores, calls)
            row = ours(model, arguments.target, arguments.seconds)
            cores, calls = row["conditions"]["cores"], row["n"]
            if not turn % 2:
                loop = theirs(model, cores, calls)
            ratios.append(row["p50_ms"] / loop)
        rows.append({"model": name, "ratio": statistics.median(ratios), "ratios": ratios, "p50_ms": row["p50_ms"]})
        print(f"{name}: {rows[-1]['ratio']:.4f} of the other loop's p50", flush=True)
    worst = max(abs(row["ratio"] - 1) for row in rows)
    return {"models": rows, "alternations": arguments.alternations, "worst": worst, "within_3_percent": worst <= 0.03}


def repeat(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The medians of runs on a quiet machine and their coefficient of variation; warnings there and beside hogs."""
    model = models(scratch)["ResNet-8 INT8"]
    quiet = [ours(model, arguments.target, arguments.seconds) for _ in range(arguments.runs)]
    with busy():
        disturbed = [ours(model, arguments.target, arguments.seconds) for _ in range(max(1, arguments.runs // 4))]
    medians = [row["p50_ms"] for row in quiet]
    warned = [[row["conditions"]["warnings"] for row in rows] for rows in (quiet, disturbed)]
    busy_words = [sum(any("machine was busy" in text for text in texts) for texts in rows) for rows in warned]
    found = {
        "medians_ms": medians,
        "cov_percent": 100 * statistics.pstdev(medians) / statistics.fmean(medians),
        "quiet_runs": len(quiet),
        "quiet_runs_warned": busy_words[0],
        "busy_runs": len(disturbed),
        "busy_runs_warned": busy_words[1],
        "busy_p50_ms": [row["p50_ms"] for row in disturbed],
        "warnings": warned,
    }
    print(f"CoV of {len(quiet)} medians: {found['cov_percent']:.2f} %")
    print(f"said to be busy: {busy_words[0]} of {len(quiet)} alone, {busy_words[1]} of {len(disturbed)} beside hogs")
    return found


def overhead(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Share of the wall time outside the runtime: of the measurement, and of the whole command from its start."""
    model = many_nodes(scratch / "chain.onnx")
    started = time.perf_counter()
    row = ours(model, arguments.target, arguments.seconds)
    command_s = time.perf_counter() - started
    conditions = row["conditions"]
    inside = conditions["runtime_s"]
    found = {
        "nodes": NODES,
        "p50_ms": row["p50_ms"],
        "runtime_s": inside,
        "wall_s": conditions["wall_s"],
        "command_s": command_s,
        "outside_share": 1 - inside / conditions["wall_s"],
        "outside_share_of_command": 1 - inside / command_s,
    }
    measuring, command = found["outside_share"], found["outside_share_of_command"]
    print(f"outside the runtime: {measuring:.1%} of measuring, {command:.1%} of the whole command")
    return found


CHECKS = {"agreement": (agreement, 2.0), "repeat": (repeat, 2.0), "overhead": (overhead, 30.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--target", default="x86-cpu")
    parser.add_argument("--seconds", type=float, help="of timed calls a run; default 2, overhead 30")
    parser.add_argument("--alternations", type=int, default=10)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--dry", action="store_true", help="record nothing")
    arguments = parser.parse_args()
    check, seconds = CHECKS[arguments.check]
    arguments.seconds = seconds if arguments.seconds is None else arguments.seconds
    with tempfile.TemporaryDirectory() as directory:
        figures = check(arguments, Path(directory))
    if not arguments.dry:
        record("profile_check", {"check": arguments.check, "seconds": arguments.seconds, **figures})


if __name__ == "__main__":
    main()
