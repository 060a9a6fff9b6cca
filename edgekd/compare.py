"""Two artifacts on the same inputs: how far their outputs are apart, and how long each takes."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import Checkpoint, OnnxModel
from edgekd.bundle.goldens import infer
from edgekd.config import ExportConfig
from edgekd.errors import ModelError, TargetError
from edgekd.profile.device import Device
from edgekd.profile.devices import list_devices, load_device
from edgekd.profile.machine import package_version
from edgekd.progress import NullProgress, Progress

BATCH = 100  # images a call, for the outputs
RANDOM = "random pixels, seed 0"

Pixels = NDArray[np.uint8]


def compare(
    a: Path,
    b: Path,
    *,
    target: str | None = None,
    data: str | None = None,
    count: int = 256,
    batches: Sequence[int] = (1,),
    runs: int = 200,
    warmup: int = 50,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """{a, b, inputs, outputs, latency} of two ONNX files or checkpoints with the same images and classes.

    `outputs` compares B's first output with A's: {n, max_abs_error, max_rel_error, mean_abs_error, cosine,
    top1_agreement}, a checkpoint by torch, a graph by ONNX Runtime. `latency` has rows of `LatencyReport.summary()`,
    a checkpoint's of the graph it exports to. Inputs are `count` validation images of `data`, or random pixels, on
    which top-1 says little. `target` is the processor to measure on, this machine's by default. Raises ModelError.
    """
    from edgekd.export import parity
    from edgekd.profile import measure_all

    device = _processor() if target is None else load_device(target)
    if device.kind != "cpu":
        raise TargetError(f"target {device.name}: diff runs on processors", "Leave out --target.")
    shapes = [image_shape(path) for path in (a, b)]
    if shapes[0] != shapes[1]:
        raise ModelError(
            f"{a} takes images of {shapes[0]} (height, width, channels) and {b} of {shapes[1]}",
            "Name two that take the same images.",
        )
    pixels, mean, std, inputs = _inputs(data, shapes[0], count)
    for path in (b, a):  # the reference's statistics, where it has some
        if path.is_dir():
            spec = Checkpoint.load(path).spec
            mean, std = spec.mean, spec.std
    first, second = (_outputs(path, pixels, mean, std) for path in (a, b))
    if first.shape != second.shape:
        raise ModelError(
            f"{a} gives outputs of {first.shape[1:]} and {b} of {second.shape[1:]}", "Name two with the same classes."
        )
    with tempfile.TemporaryDirectory() as scratch:
        graphs = [_graph(path, Path(scratch) / str(i)) for i, path in enumerate((a, b))]
        reports = measure_all(
            graphs,
            device,
            batches=batches,
            runs=runs,
            warmup=warmup,
            threads=threads,
            progress=progress or NullProgress(),
        )
    return {
        "a": {"path": str(a), "runtime": _runtime(a)},
        "b": {"path": str(b), "runtime": _runtime(b)},
        "inputs": inputs,
        "normalised_with": {"mean": list(mean), "std": list(std)},
        "outputs": parity.compare(second, first),
        "target": device.name,
        "latency": [report.summary() for report in reports],
    }


def _processor() -> Device:
    """The target that this machine's processor is. Raises TargetError."""
    machine = platform.machine()
    found = [device for device in list_devices() if device.kind == "cpu" and machine in device.architectures]
    if not found:
        raise TargetError(f"no target is for {machine}", "Name one with --target.")
    return found[0]


def image_shape(path: Path) -> tuple[int, int, int]:
    """(H, W, C) of an artifact's images. Raises ModelError."""
    from edgekd.describe.onnx import load, signature

    if path.is_dir():
        channels, height, width = Checkpoint.load(path).spec.input_shape
        return height, width, channels
    if not path.is_file():
        raise ModelError(f"{path} does not exist", "Name an .onnx file or a checkpoint's directory.")
    inputs = signature(load(path), "input")
    shape = inputs[0]["shape"] if len(inputs) == 1 else []
    if len(shape) != 4 or None in shape[1:]:
        raise ModelError(f"{path} does not have one input [batch, C, H, W]", "Export it with a fixed image size.")
    x, y, z = shape[1:]
    return (x, y, z) if inputs[0]["dtype"] == "uint8" else (y, z, x)


def _inputs(
    data: str | None, shape: tuple[int, int, int], count: int
) -> tuple[Pixels, tuple[float, ...], tuple[float, ...], str]:
    """Pixels [N, H, W, C], mean and std of images / 255, and what they are."""
    if data is None:
        pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
        return pixels, (0.5,) * shape[2], (12**-0.5,) * shape[2], f"{count} images of {RANDOM}"
    from edgekd.data import load_dataset

    loaded = load_dataset(data, image_size=shape[0] if shape[0] == shape[1] else None)
    pixels = loaded.val.images[:count]
    if pixels.shape[1:] != shape:
        raise ModelError(f"the images of {data} are {pixels.shape[1:]}, not {shape}", "Name data of that size.")
    return pixels, loaded.mean, loaded.std, f"{len(pixels)} validation images of {loaded.name}"


def _outputs(path: Path, pixels: Pixels, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """The first output [N, K] of an artifact, by its own runtime."""
    if not path.is_dir():
        outputs = infer(str(path), pixels, mean, std, optimised=True, batch=BATCH)
        return next(iter(outputs.values())).astype(np.float32, copy=False)
    from edgekd.models import load_checkpoint
    from edgekd.quantize import convert
    from edgekd.tasks.classification import predict_torch

    checkpoint = Checkpoint.load(path)
    model = load_checkpoint(checkpoint) if checkpoint.scheme is None else convert(checkpoint)
    return predict_torch(model, pixels, tuple(mean), tuple(std), BATCH)


def _graph(path: Path, scratch: Path) -> OnnxModel:
    """The graph to measure; a checkpoint is exported to `scratch`. It is called by its path."""
    from edgekd.standalone import export_checkpoint, read_onnx

    model = export_checkpoint(path, scratch, ExportConfig()) if path.is_dir() else read_onnx(path)
    return replace(model, artifact=str(path))


def _runtime(path: Path) -> str:
    name = "torch" if path.is_dir() else "onnxruntime"
    return f"{name} {package_version(name)}"
