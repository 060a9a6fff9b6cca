"""TensorRT-RTX engines of an INT8 and an FP16 student for five SMs, each built twice; and its word on every opset.

    python benchmarks/engines.py

The student is a ResNet-18 at 224 x 224 with random weights, calibrated on noise: sizes and seconds do not hang on what
it has learned. No engine is run: that takes the GPU it is for.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _graphs import TARGETS, engine
from _record import record
from safetensors.torch import save_file

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.errors import BackendError
from edgekd.export.parity import compare
from edgekd.export.tensorrt import BUILDERS
from edgekd.models import build_model
from edgekd.profile.backends.ort_cpu import OrtCpuSession
from edgekd.quantize import export_quantized
from edgekd.quantize.graph import calibrate, prepare, scheme_of, state_of

SPEC = ModelSpec("timm", "resnet18", 1000, (3, 224, 224))
STUDENTS = {"int8+fp16": 19, "fp16": 18}  # schemes, and the opset of their engines
OPSETS = {"tensorrt": (13, 17, 18, 19, 21), "fp16": (13, 17, 18, 19, 21), "int8+fp16": (19, 21)}
TIMES = 2


def student(scheme: str, directory: Path) -> Checkpoint:
    torch.manual_seed(0)
    network, noise = build_model(SPEC).train(), torch.randn(16, *SPEC.input_shape)
    with torch.no_grad():
        network(noise)
    directory.mkdir()
    checkpoint = Checkpoint(str(directory), SPEC, scheme=scheme)
    prepared = prepare(network, SPEC.input_shape, scheme_of(checkpoint))
    calibrate(prepared, [noise])
    save_file(state_of(prepared, noise[:2]), checkpoint.weights)
    return checkpoint


def difference(a: bytes, b: bytes) -> str | None:
    """Where two engines differ; None where they do not."""
    if len(a) != len(b):
        return f"{len(a)} and {len(b)} bytes"
    places = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    return f"{len(places)} bytes, the first at {places[0]}" if places else None


def built_twice(scheme: str, graph: Path, sm: int, scratch: Path) -> dict[str, Any]:
    plans = [scratch / f"{scheme}-{sm}-{i}.engine" for i in range(TIMES)]
    found = [engine(graph, sm, plan) for plan in plans]
    first, *others = (plan.read_bytes() for plan in plans)
    return {
        "student": scheme,
        "sm": sm,
        "bytes": len(first),
        "seconds": [round(built.seconds, 2) for built in found],
        "sha256": hashlib.sha256(first).hexdigest(),
        "differ": next((text for other in others if (text := difference(first, other)) is not None), None),
    }


def at_opset(scheme: str, opset: int, graph: Path, noise: Any, expected: Any) -> dict[str, Any]:
    """Does NVIDIA's parser take it, does its builder, and does ONNX Runtime compute what the usual opset does?"""
    logits = OrtCpuSession(str(graph), 1, optimised=False).infer({"images": noise})["logits"]
    row: dict[str, Any] = {"student": scheme, "opset": opset, "onnx_bytes": graph.stat().st_size}
    row["max_rel_error"] = compare(logits, expected)["max_rel_error"]
    try:
        row["engine_bytes"] = engine(graph, 86).header.bytes
    except BackendError as error:
        row["refused"] = error.what
    return row


def main() -> None:
    engines, opsets = [], []
    noise = np.random.default_rng(0).standard_normal((2, *SPEC.input_shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        for scheme, wanted in OPSETS.items():
            checkpoint, graphs = student(scheme, scratch / scheme), {}
            for opset in wanted:
                graphs[opset] = scratch / f"{scheme}-{opset}.onnx"
                export_quantized(checkpoint, graphs[opset], opset)
            usual = graphs[STUDENTS.get(scheme, 18)]
            expected = OrtCpuSession(str(usual), 1, optimised=False).infer({"images": noise})["logits"]
            for opset, graph in graphs.items():
                opsets.append(at_opset(scheme, opset, graph, noise, expected))
                print(opsets[-1], flush=True)
            for sm in TARGETS if scheme in STUDENTS else ():
                engines.append(built_twice(scheme, usual, sm, scratch))
                print(engines[-1], flush=True)
    figures = {
        "student": "ResNet-18, 224 x 224, random weights",
        "builder": f"tensorrt-rtx {BUILDERS['tensorrt-rtx'].version()}",
        "engines": engines,
        "identical": sum(row["differ"] is None for row in engines),
        "median_seconds": statistics.median(second for row in engines for second in row["seconds"]),
        "opsets": opsets,
    }
    record("engines", figures)
    print(f"{figures['identical']} of {len(engines)} engines have the same bytes when built again")


if __name__ == "__main__":
    main()
