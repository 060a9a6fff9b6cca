"""A published peer, side by side: MLPerf Tiny's ResNet-8 for CIFAR-10, INT8 by LiteRT, and a student of edgekd's.

    pip install ai-edge-litert
    python benchmarks/mlperf_tiny.py DATA RUN [--epochs 60] [--space cifar-resnet] [--latency MS] [--set KEY=VALUE]

The student is searched with no more MACs than the ResNet-8 (12.5 M) and less than its latency, distilled from the
CIFAR-10 ResNet-56, quantized and exported by `edgekd compress RUN.yaml --out RUN`. This script writes RUN.yaml, once:
a second call goes on where the first was cut. Its file may be no larger than the .tflite either. Beside the weights, a
byte each, an ONNX file holds scales, biases, names and nodes, about a kilobyte a layer, so the limit on parameters
depends on what is found: where the file would be too large the search is done again with fewer.

Accuracy on all 10,000 test images by each one's runtime; latency of both in one process on one thread. The ResNet-8 by
edgekd with random weights is timed as well: what of the difference is the runtime's. Where AVX-512 multiplies bytes,
LiteRT runs the ResNet-8 twice as fast as ONNX Runtime, and no student is as fast as the peer: `--latency` allows more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from _graphs import FASTER, export_ptq, settled
from _litert import LiteRtSession
from _record import lines, record

from edgekd.artifacts import ModelSpec
from edgekd.data import load_dataset
from edgekd.data.dataset import Split
from edgekd.models import build_model, cost
from edgekd.profile.devices import load_device
from edgekd.quantize.schemes.ort import Ort
from edgekd.stage import digest_file
from edgekd.tasks.classification import top1

IMAGES, TEACHER = "cifar10_train6bit_testexact.zip", "teachers/cifar10_resnet56-4bfd9763.th"
PEER = "teachers/mlperftiny_resnet8_pretrainedResnet_quant.tflite"
TARGET = "x86-cpu"
RESNET8 = ModelSpec("edgekd", "resnet8", 10, (3, 32, 32), {"shortcut": "B"})  # its parameters and MACs, layer by layer
BATCH = 100


def timed(peer: Path, onnx: Path, runs: int) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("_litert.py")), str(peer), str(onnx), str(runs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def int8_file(spec: ModelSpec, out: Path) -> None:
    """A network of random weights, quantized: as many bytes, and as fast, as a trained one."""
    torch.manual_seed(0)
    images = torch.randn(16, *spec.input_shape)
    export_ptq(settled(build_model(spec), images), [images], "ort", out, Ort.options(load_device(TARGET)))


def edgekd(config: Path, run: Path, *options: str) -> None:
    command = [sys.executable, "-m", "edgekd", "compress", str(config), "--out", str(run), *options]
    subprocess.run(command, check=True)


def searched(config: Path, settings: dict[str, Any], run: Path, most: int, options: Sequence[str]) -> None:
    """Search in `run`, with fewer parameters until the INT8 file has at most `most` bytes; `config` says how."""
    while True:
        config.write_text(yaml.safe_dump(settings, sort_keys=False))
        edgekd(config, run, "--until", "search", *options)
        chosen = json.loads((run / "search" / "search.json").read_text())["chosen"]
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "int8.onnx"
            int8_file(ModelSpec.from_json(chosen["spec"]), file)
            excess = file.stat().st_size - most
        if excess <= 0:
            return
        print(f"{chosen['name']}: {excess} bytes too large", flush=True)
        settings["search"]["max_params"] = chosen["params"] - excess


def configuration(options: argparse.Namespace, macs: int, params: int, latency_ms: float) -> dict[str, Any]:
    """As examples/cifar10.yaml, under the peer's limits."""
    return {
        "data": str((options.data / IMAGES).resolve()),
        "target": TARGET,
        "val_fraction": 0.02,
        "latency": f"{latency_ms:.4f}ms",
        "teacher": {
            "source": f"file:{(options.data / TEACHER).resolve()}",
            "arch": "resnet56",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
        "search": {"space": options.space, "max_macs": macs, "max_params": params},
        "distill": {
            "epochs": options.epochs,
            "optimizer": "muon",
            "lr": 0.005,
            "weight_decay": 0.05,
            "progressive": 0.5 if options.space == "cifar-resnet" else 0.0,
            "views": min(8, options.epochs),
        },
        "quantize": {"qad": {"epochs": 1}},
    }


def accuracy(peer: Path, test: Split) -> float:
    """Of the peer by LiteRT, in batches of a size that divides the test split."""
    session = LiteRtSession(str(peer), BATCH)
    parts = [test.images[i : i + BATCH] for i in range(0, len(test), BATCH)]
    return top1(np.concatenate([session.run(session.quantized(part)) for part in parts]), test.labels)


def compared(
    options: argparse.Namespace, peer: Path, student: Path, resnet8: dict[str, Any], digest: str
) -> dict[str, Any]:
    """Both files, each by its runtime; the student's accuracy is that of the run's report."""
    report = json.loads((options.run / "report.json").read_text())
    ledger = {row["artifact"]: row["value"] for row in report["ledger"]}
    chosen, measured = report["search"]["chosen"], timed(peer, student, options.runs)
    p50, preempted = measured["p50_ms"], measured["preempted"]
    rows = {
        "litert": {"top1": accuracy(peer, load_dataset(str(options.data / IMAGES)).test), "macs": resnet8["macs"]},
        "edgekd": {"top1": ledger["onnx-int8"], "macs": chosen["macs"]},
    }
    for name, file, runtime in (("litert", peer, "litert"), ("edgekd", student, "onnxruntime")):
        rows[name] |= {"bytes": file.stat().st_size, "p50_ms": p50[runtime], "preempted": preempted[runtime]}
    return {
        "rows": rows,
        "resnet8": resnet8,
        "student": chosen["name"],
        "space": report["search"]["space"],
        "params": chosen["params"],
        "epochs": report["config"]["distill"]["epochs"],
        "ledger": ledger,
        "runs": measured["n"],
        "digest": digest,
    }


def show(figures: dict[str, Any]) -> None:
    rows, resnet8 = figures["rows"], figures["resnet8"]
    for name, row in rows.items():
        print(f"{name:<8} {row['top1']:.2%}  {row['p50_ms']:.3f} ms  {row['bytes']:,} bytes  {row['macs']:,} MACs")
    print(f"ResNet-8 by edgekd, random weights: {resnet8['p50_ms']:.3f} ms, {resnet8['bytes']:,} bytes")
    for what in ("bytes", "macs", "p50_ms"):
        if rows["edgekd"][what] > rows["litert"][what]:
            print(f"the student has more {what} than the ResNet-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--space", default="cifar-resnet")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--latency", type=float, help="at most so many ms, instead of just under the peer's")
    parser.add_argument("--runs", type=int, default=1000, help="timed runs of each file")
    parser.add_argument("--set", action="append", default=[], help="handed on to edgekd compress")
    options = parser.parse_args()
    peer, config = options.data / PEER, options.run.with_suffix(".yaml")
    most, assignments = peer.stat().st_size, [word for text in options.set for word in ("--set", text)]
    macs = cost(build_model(RESNET8), RESNET8.input_shape).macs
    with tempfile.TemporaryDirectory() as directory:
        same = Path(directory) / "resnet8.onnx"
        int8_file(RESNET8, same)
        before = timed(peer, same, options.runs)["p50_ms"]
        resnet8 = {"p50_ms": before["onnxruntime"], "bytes": same.stat().st_size, "macs": macs}
    if config.exists():
        settings = yaml.safe_load(config.read_text())
    else:
        config.parent.mkdir(parents=True, exist_ok=True)
        latency_ms = options.latency or FASTER * before["litert"]
        settings = configuration(options, macs, most, latency_ms)
    searched(config, settings, options.run, most, assignments)
    edgekd(config, options.run, *assignments)
    student = options.run / "export" / "student-int8.onnx"
    digest = digest_file(student)
    found = [line["figures"] for line in lines("mlperf_tiny") if line["figures"]["digest"] == digest]
    if not found:
        found = [compared(options, peer, student, resnet8, digest)]
        record("mlperf_tiny", found[0])
    show(found[-1])


if __name__ == "__main__":
    main()
