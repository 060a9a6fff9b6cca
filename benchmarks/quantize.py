"""INT8 by edgekd beside INT8 by others: accuracy by ONNX Runtime, latency in one process, size.

    python benchmarks/quantize.py DATA --store DIR [--modelopt PYTHON] [--nets resnet20,vit] [--qad-epochs 2]

Of each of the CIFAR-100 students (`_students.py`): FP32; ONNX Runtime's static quantization as its documentation says
for this processor (Q/DQ, per channel, 7-bit weights where there is no VNNI); ModelOpt's, whose graphs are meant for
TensorRT, made by the interpreter PYTHON, which has `pip install 'nvidia-modelopt[onnx]'` (left out without it); our PTQ
and our QAD, which is trained however good PTQ is. All from one FP32 graph's weights and the same 512 images.

Two nets of random weights, where accuracy means nothing, show the latency alone: ResNet-20 of twice the channels (32,
64, 128) and ResNet-18 at 224x224. Every net appends its line; one whose rows are there is left out.
"""

from __future__ import annotations

import os
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _cifar100 import CIFAR100, SHAPE
from _graphs import export_ptq, latencies, settled
from _record import lines, record
from _students import DEVICE, NETS, OPSET, Students
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgekd.artifacts import ModelSpec
from edgekd.config import QuantizeConfig
from edgekd.export import export_fp32
from edgekd.models import build_model, load_checkpoint
from edgekd.profile.machine import has_vnni
from edgekd.quantize import lint
from edgekd.quantize.schemes.ort import Ort

WIDE = {"depths": [3, 3, 3], "widths": [32, 64, 128]}
RANDOM = {
    "resnet20-wide": ModelSpec("edgekd", "cifar-resnet", 100, SHAPE, WIDE, **CIFAR100),
    "resnet18-224": ModelSpec("timm", "resnet18", 1000, (3, 224, 224)),
}
Images = NDArray[np.float32]


class Reader(CalibrationDataReader):
    """Calibration images [N, C, H, W], one at a time."""

    def __init__(self, images: Images) -> None:
        self.images: Iterator[Images] = iter(images[:, None])

    def get_next(self) -> dict[str, Images] | None:
        image = next(self.images, None)
        return None if image is None else {"images": image}


def by_onnxruntime(graph: Path, images: Images, out: Path) -> None:
    prepared = out.with_suffix(".prepared")
    quant_pre_process(str(graph), str(prepared))
    quantize_static(
        str(prepared),
        str(out),
        Reader(images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=not has_vnni(),
    )
    prepared.unlink()


def by_modelopt(python: Path, graph: Path, images: Images, out: Path) -> None:
    file = out.with_suffix(".npy")
    np.save(file, images)
    script = Path(__file__).with_name("_modelopt.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(python), str(script), str(graph), str(file), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ModelOpt ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    file.unlink()


def trained(students: Students, net: str, options: Namespace) -> dict[str, Any]:
    """The graphs of a student and what each is worth; a graph that is in the store is not made again."""
    config = QuantizeConfig.model_validate({"qad": {"epochs": options.qad_epochs, "tolerance": None}})
    home, checkpoint = students.home(net), students.checkpoint(net)
    images = torch.cat(students.calibration(config)).contiguous().numpy()
    graphs = {"fp32": home / "fp32.onnx"}
    export_fp32(load_checkpoint(checkpoint), graphs["fp32"], SHAPE, OPSET)
    others = {"onnxruntime": by_onnxruntime}
    if options.modelopt is not None:
        others["modelopt"] = lambda *files: by_modelopt(options.modelopt, *files)
    for name, quantized in others.items():
        graphs[name] = home / f"{name}.onnx"
        if not graphs[name].is_file():
            partial = graphs[name].with_suffix(".partial.onnx")
            quantized(graphs["fp32"], images, partial)
            partial.rename(graphs[name])
    directory, own = students.quantized(net, config)
    graphs |= {"ptq": directory / "student-ptq.onnx", "qad": directory / "student-qad.onnx"}
    p50, warnings = latencies(graphs, SHAPE, options.runs)
    rows = {
        name: {
            "top1": students.top1(graph),
            "p50_ms": p50[name],
            "bytes": graph.stat().st_size,
            "executed": lint(graph).line,
        }
        for name, graph in graphs.items()
    }
    chosen = {key: own[key] for key in ("chosen", "weight_bits", "calibrator") if key in own}
    return {"net": net, "rows": rows, **chosen, **students.protocol, "qad": config.qad.epochs, "warnings": warnings}


def untrained(net: str, options: Namespace) -> dict[str, Any]:
    """FP32 and INT8 of random weights."""
    spec, home = RANDOM[net], options.store / net
    home.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    images = torch.randn(8, *spec.input_shape)
    network = settled(build_model(spec), images)
    graphs = {"fp32": home / "fp32.onnx", "ptq": home / "ptq.onnx"}
    export_fp32(network, graphs["fp32"], spec.input_shape, OPSET)
    export_ptq(network, [images], "ort", graphs["ptq"], Ort.options(DEVICE))
    p50, warnings = latencies(graphs, spec.input_shape, options.runs)
    rows = {
        name: {"p50_ms": p50[name], "bytes": graph.stat().st_size, "executed": lint(graph).line}
        for name, graph in graphs.items()
    }
    return {"net": net, "rows": rows, "weights": "random", "warnings": warnings}


def show(figures: dict[str, Any]) -> None:
    rows = figures["rows"]
    for name, row in rows.items():
        top1 = f"{row['top1']:8.2%}" if "top1" in row else f"{'-':>8}"
        ratio = rows["fp32"]["p50_ms"] / row["p50_ms"]
        measured = f"{top1} {row['p50_ms']:8.3f} ms {ratio:5.2f}x {row['bytes']:>10,} bytes"
        print(f"{figures['net']:<14} {name:<12} {measured}  {row['executed']}", flush=True)
    if figures["warnings"]:
        print(
            f"{figures['net']:<14} {len(figures['warnings'])} warnings, such as: {figures['warnings'][0]}", flush=True
        )


def main() -> None:
    parser = Students.arguments(__doc__)
    parser.add_argument("--nets", default=",".join([*NETS, *RANDOM]))
    parser.add_argument("--modelopt", type=Path, help="an interpreter that has nvidia-modelopt[onnx]")
    parser.add_argument("--qad-epochs", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=400, help="timed runs of each graph")
    options = parser.parse_args()
    students = Students.of(options)
    if options.modelopt is None:
        print("modelopt: left out, --modelopt names an interpreter that has it")
    finished = {}
    for line in lines("quantize"):
        found = line["figures"]
        if found["net"] in RANDOM or {key: found[key] for key in students.protocol} == students.protocol:
            finished[found["net"]] = found
    for net in options.nets.split(","):
        wanted = {"modelopt"} if options.modelopt is not None and net not in RANDOM else set()
        figures = finished.get(net)
        if (
            figures is None
            or not wanted <= figures["rows"].keys()
            or figures.get("qad") not in (None, options.qad_epochs)
        ):
            figures = untrained(net, options) if net in RANDOM else trained(students, net, options)
            record("quantize", figures)
        show(figures)


if __name__ == "__main__":
    main()
