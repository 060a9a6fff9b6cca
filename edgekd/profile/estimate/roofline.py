"""What kernels take on a GPU by the roofline (Williams, Waterman and Patterson 2009), and what launching them costs.

    t = sum over the kernels k of  max(F_k / (e_f P), B_k / (e_b W)) + l

F_k are the operations of kernel k (two a MAC) and B_k the bytes that it reads and writes. P is the device's peak rate
for the numbers at hand and W its memory bandwidth, of its profile and so at the highest clock; e_f and e_b are the
shares of them that kernels reach, fitted to published tables. l is the least time of a kernel: on a Jetson a number of
clock cycles, on the others a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError, ModelError, TargetError
from edgekd.profile.device import Device
from edgekd.profile.estimate.kernels import Kernel, Network, read_network

Precision = Literal["fp32", "fp16", "int8"]
Array = NDArray[np.float64]

WIDTHS = {"fp32": 4, "fp16": 2, "int8": 2}  # bytes of a float; beside INT8 the rest is FP16, as `edgekd build` has it
TENSOR_CORES, TF32, FULL_FP32 = 7.0, 8.0, 8.0  # the compute capabilities that brought them


@dataclass(frozen=True)
class Constants:
    """What the tables were fitted by. Efficiencies are shares of a peak, in [0, 1]."""

    tensor: float  # of convolutions and products on tensor cores
    plain: float  # of them on CUDA cores
    grouped: float  # of convolutions that sum over few channels, on CUDA cores
    bandwidth: float
    launch_us: float  # of a kernel on a desktop or datacenter GPU
    launch_kcycles: float  # on a Jetson with tensor cores: thousands of GPU clock cycles
    launch_kcycles_old: float  # on an older Jetson


class Work(NamedTuple):
    """Kernels as columns [K]: MACs, bytes, whether they are `grouped`, and whether they compute in INT8."""

    macs: Array
    bytes: Array
    grouped: NDArray[np.bool_]
    int8: NDArray[np.bool_]


class Limits(NamedTuple):
    """A device at one precision, or one a kernel as columns [K]: T(FL)OP/s, GB/s, and the launch's clock and class."""

    float_rate: Any  # of convolutions and products
    int8_rate: Any
    grouped_rate: Any
    bandwidth: Any
    tensor: Any  # 1 where tensor cores do the products
    clock: Any  # GHz; of a Jetson
    jetson: Any  # 1 on a Jetson
    old: Any  # 1 without tensor cores


class Times(NamedTuple):
    """Columns [K] in ms; a kernel takes the longer of the first two and the third."""

    arithmetic: Array
    memory: Array
    launch: Array

    @property
    def total(self) -> Array:
        return np.maximum(self.arithmetic, self.memory) + self.launch


def precision_of(network: Network, wanted: str | None) -> Precision:
    """`wanted`, or what the graph is stored in. Raises ModelError where the graph cannot run in that."""
    if wanted is not None and wanted not in get_args(Precision):
        raise ModelError(f"precision: {wanted!r} is not known", f"Choose of {', '.join(get_args(Precision))}.")
    if network.stored == "int8" and wanted not in (None, "int8"):
        raise ModelError(f"precision: {wanted}, and the graph is quantized to INT8", "Name the float graph for that.")
    if network.stored == "fp16" and wanted == "fp32":
        raise ModelError("precision: fp32, and the graph is stored in FP16", "Name the FP32 graph for that.")
    return cast(Precision, wanted or network.stored)


def work(network: Network, precision: Precision) -> Work:
    """A float graph at int8 counts as quantized throughout; a Q/DQ graph is INT8 where it says so."""
    throughout = precision == "int8" and network.stored != "int8"
    kernels, width = network.kernels, WIDTHS[precision]
    return Work(
        macs=np.array([kernel.macs for kernel in kernels], float),
        bytes=np.array([_bytes(kernel, width, throughout) for kernel in kernels], float),
        grouped=np.array([kernel.kind == "grouped" for kernel in kernels]),
        int8=np.array([throughout or kernel.int8 for kernel in kernels]),
    )


def _bytes(kernel: Kernel, width: int, int8: bool) -> int:
    if int8:
        return kernel.numbers + kernel.weights
    weights = kernel.weights * (1 if kernel.int8 else width)
    return (kernel.numbers - kernel.quantized) * width + kernel.quantized + weights


def limits(device: Device, precision: Precision) -> Limits:
    """Raises TargetError where the device runs no TensorRT or its profile lacks a figure."""
    capability = device.compute_capability
    if device.backend != "tensorrt" or capability is None:
        raise TargetError(
            f"target {device.name}: estimates are for NVIDIA GPUs with TensorRT",
            "Measure it there: `edgekd profile MODEL.onnx --target T`.",
        )
    if precision not in device.formats:
        raise TargetError(
            f"target {device.name}: it has no fast {precision}", f"Choose --precision of {', '.join(device.formats)}."
        )

    def figure(name: str) -> float:
        if name not in device.figures:
            raise TargetError(
                f"target {device.name}: its profile has no {name}, which an estimate at {precision} needs",
                "Add it to a profile of your own, with its source, and name that file as --target.",
            )
        return device.figures[name].value

    cores = "tensor_cores" not in device.figures or figure("tensor_cores") > 0
    tensor = capability >= TENSOR_CORES and cores and (precision != "fp32" or capability >= TF32)
    if precision == "fp32":
        rate = figure("peak_fp16") / 2 if tensor else figure("peak_fp32")  # TensorRT takes TF32 where there is any
    else:
        rate = figure("peak_fp16")
    half = 1 if precision == "fp32" or capability >= FULL_FP32 else 2
    return Limits(
        float_rate=rate,
        int8_rate=figure("peak_int8") if precision == "int8" else rate,
        grouped_rate=figure("peak_fp32") * half,
        bandwidth=figure("memory_bandwidth"),
        tensor=float(tensor),
        clock=figure("gpu_clock") if device.kind == "jetson" else 1.0,
        jetson=float(device.kind == "jetson"),
        old=float(capability < TENSOR_CORES),
    )


def under_the_roof(path: Path, device: Device, batch: int) -> dict[str, float] | None:
    """{gops, mbytes, peak_tops, bandwidth_gbs} of an ONNX file in its own precision and of the device's datasheet.

    Operations are two a MAC, bytes those of its kernels. None where the graph's cost is not known, or the device's
    peaks are not.
    """
    try:
        network = read_network(path, batch)
        precision = precision_of(network, None)
        found, roof = work(network, precision), limits(replace(device, backend="tensorrt"), precision)  # whatever ran
    except InputError:
        return None
    return {
        "gops": 2 * float(found.macs.sum()) / 1e9,
        "mbytes": float(found.bytes.sum()) / 1e6,
        "peak_tops": float(roof.int8_rate if found.int8.any() else roof.float_rate),
        "bandwidth_gbs": float(roof.bandwidth),
    }


def times(work: Work, limits: Limits, constants: Constants) -> Times:
    """What every kernel takes. The limits are one device's, or a column of each."""
    c = constants
    products = np.where(limits.tensor == 1, c.tensor, c.plain) * np.where(
        work.int8, limits.int8_rate, limits.float_rate
    )
    rate = np.where(work.grouped, c.grouped * limits.grouped_rate, products)
    cycles = np.where(limits.old == 1, c.launch_kcycles_old, c.launch_kcycles)
    launch = np.where(limits.jetson == 1, cycles / limits.clock, c.launch_us) / 1e3
    return Times(
        arithmetic=2 * work.macs / (rate * 1e9),
        memory=work.bytes / (c.bandwidth * limits.bandwidth * 1e6),
        launch=np.broadcast_to(launch, work.macs.shape),
    )
