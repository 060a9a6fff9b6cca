"""The latency estimate on devices it was not fitted to: published tables, each device left out in turn.

    python benchmarks/latency_estimate.py DATA TRTUTILS [--write]

DATA/latency holds tables of torch2trt, EfficientViT and Ultralytics, and DATA/nas NAS-Bench-201 on a Jetson TX2 from
HW-NAS-Bench (Li et al. 2021). TRTUTILS is a clone of github.com/justincdavis/trtutils with commit 471d1e9, whose
benchmark has times of bare FP16 engines ("tensorrt": no transfers, no pre- or post-processing) beside the end-to-end
ones. All are TensorRT at batch 1. The networks are built again without weights; detectors are checked against the
parameters and FLOPs that their authors state. Not used: pruned models and the DLAs' throughput, whose graphs are not
known, and tables of PyTorch, which is another runtime.

A device is left out of the constants and, for its band, of every fit that the band is learned from. The AGX Orin
developer kits of 32 and 64 GB have one GPU (they are within a tenth) and count as one device. Of the TX2's cells 200
are drawn that use every edge: what its engines did with unused edges is not known from the graph. Two baselines stand
beside: FLOPs over the peak, and the roofline of every kernel without launches; each is scaled by one factor, fitted as
well. The form of the model and the centres of its prior were chosen with these tables in view; the constants and bands
were not.

Two devices stay hard. Of the Jetson Nano there are two tables of different projects and networks: against the estimate
one is slow and the other fast, so ranks across both are poor. On the TX2 the cells differ by less than a factor of two,
and 1x1 and 3x3 convolutions took the same 80 us: counts of work do not tell them apart.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import timm
import torchvision
from _meta_onnx import meta_graph
from _record import record
from _yolo import PUBLISHED, build
from numpy.typing import NDArray

from edgekd.models.nasbench201 import parse
from edgekd.profile.device import Device, Figure
from edgekd.profile.devices import load_device
from edgekd.profile.estimate.estimate import FILE, features
from edgekd.profile.estimate.fitting import Measured, Table, band, fit
from edgekd.profile.estimate.kernels import Network, network
from edgekd.profile.estimate.roofline import Constants, limits, times, work
from edgekd.profile.graphs import build_network
from edgekd.search._statistics import spearman
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.nasbench201 import NasBench201Space
from edgekd.stage import write_json

Array = NDArray[np.float64]
COVERAGE = 0.8
COMMIT = "471d1e9"
CELLS = 200
SOURCES = (
    "NVIDIA-AI-IOT/torch2trt 4e820ae",
    "mit-han-lab/efficientvit de7d773",
    "ultralytics/ultralytics 0100750",
    "justincdavis/trtutils 471d1e9",
    "HW-NAS-Bench",
)
DEVICES = {
    "jetson_nano": "jetson-nano",
    "jetson_agx_xavier": "jetson-agx-xavier",
    "jetson_agx_orin": "jetson-agx-orin-64gb",
    "jetson_orin_nano_8gb_super": "jetson-orin-nano-super",
    "jetson_orin_nx_16gb": "jetson-orin-nx-16gb",
    "XavierNX-8GB": "jetson-xavier-nx",
    "OrinNano-8GB": "jetson-orin-nano",
    "OrinNX-16GB": "jetson-orin-nx-16gb",
    "OrinAGX-32GB": "jetson-agx-orin-64gb",
    "OrinAGX-64GB": "jetson-agx-orin-64gb",
    "3080Ti": "rtx-3080-ti",
    "3090": "rtx-3090",
    "TitanRTX": "titan-rtx",
}
# Two cards that have no profile; all figures from memory.
CARDS = {
    "rtx-3080-ti": (
        "rtx-3090",
        {"sms": 80, "gpu_clock": 1.665, "memory_bandwidth": 912, "peak_fp32": 34.1, "peak_fp16": 136},
    ),
    "titan-rtx": ("t4", {"sms": 72, "gpu_clock": 1.77, "memory_bandwidth": 672, "peak_fp32": 16.3, "peak_fp16": 130.5}),
}


class Row(NamedTuple):
    """One published latency."""

    table: str
    device: str
    model: str
    precision: str
    size: int
    ms: float


def rows(data: Path, trtutils: Path) -> Iterator[Row]:
    latency = data / "latency"
    for row in _csv(latency / "torch2trt_jetson_fp16_b1.csv"):
        yield Row("torch2trt", DEVICES[row["device"]], row["model"], "fp16", 224, float(row["trt_latency_ms"]))
    for row in _csv(latency / "efficientvit_jetson_fp16_b1.csv"):
        name = f"efficientvit_{row['model'].removeprefix('EfficientViT-').lower()}"
        ms = float(row["trt_latency_ms_incl_transfers"])
        yield Row("efficientvit", DEVICES[row["device"]], name, "fp16", int(row["resolution"]), ms)
    for row in _csv(latency / "ultralytics_yolo11_jetson.csv"):
        ms = float(row["trt_inference_ms"])
        yield Row("ultralytics", DEVICES[row["device"]], row["model"], row["precision"], int(row["resolution"]), ms)
    for device in (
        "XavierNX-8GB",
        "OrinNano-8GB",
        "OrinNX-16GB",
        "OrinAGX-32GB",
        "OrinAGX-64GB",
        "3080Ti",
        "3090",
        "TitanRTX",
    ):
        file = f"{COMMIT}:benchmark/data/models/{device}.json"
        text = subprocess.run(["git", "-C", str(trtutils), "show", file], check=True, capture_output=True).stdout
        for model, sizes in json.loads(text)["tensorrt"].items():
            for size, found in sizes.items():
                yield Row("trtutils", DEVICES[device], model, "fp16", int(size), found["median"])
    cells = [
        r for r in _csv(data / "nas/nasbench201_master.csv") if r["tx2_trt_fp32_ms"] and "none" not in r["arch_str"]
    ]
    for row in random.Random(0).sample(cells, CELLS):
        yield Row("hw-nas-bench", "jetson-tx2", row["arch_str"], "fp32", 32, float(row["tx2_trt_fp32_ms"]))


def _csv(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


@cache
def device(name: str) -> Device:
    if name not in CARDS:
        return load_device(name)
    like, figures = CARDS[name]
    base = load_device(like)
    known = {key: replace(base.figures[key], value=value, source="from memory") for key, value in figures.items()}
    cores: dict[str, Figure] = {"tensor_cores": base.figures["tensor_cores"]}
    return replace(base, name=name, title=name, figures={**cores, **known})


@cache
def graph(model: str, size: int) -> Network:
    if model.startswith("|"):
        point = NasBench201Space(10, (3, size, size)).network(Genotype(operations=parse(model)))
        return network(onnx.load_from_string(build_network(point, "fp32")))
    if model in PUBLISHED:
        return network(meta_graph(lambda: build(model), (3, size, size)))
    make = timm.create_model if model.startswith("efficientvit") else torchvision.models.get_model
    return network(meta_graph(lambda: make(model), (3, size, size)))


def check_detectors() -> dict[str, float]:
    """How far the rebuilt detectors' FLOPs are from the published ones, in shares of them."""
    return {name: 2 * graph(name, size).macs / 1e9 / flops - 1 for name, (_, flops, size) in PUBLISHED.items()}


def agreement(predicted: Array, measured: Array) -> dict[str, float]:
    return {"rho": float(spearman(predicted, measured)), "mape": float(np.abs(predicted / measured - 1).mean())}


def scaled(inputs: Array, table: Table, rest: NDArray[np.bool_]) -> Array:
    """A baseline times the factor that is right in the middle of the other devices."""
    off = np.log(table.ms / inputs)
    middles = [np.median(off[rest & (table.devices == name)]) for name in np.unique(table.devices[rest])]
    return inputs * np.exp(np.mean(middles))


def evaluate(
    table: Table, sources: NDArray[np.str_], baselines: dict[str, Array], architectures: dict[str, str]
) -> dict[str, dict[str, object]]:
    """Of every device, left out: the estimate, its band and the baselines; and with its whole architecture left out."""
    names = [str(name) for name in np.unique(table.devices)]
    fits: dict[frozenset[str], Constants] = {}

    def errors(on: str, *out: str) -> Array:
        """Logs of predicted over measured on a device, by a fit without those."""
        key = frozenset(out)
        if key not in fits:
            fits[key] = fit(table, table.without(*out))
        of = ~table.without(on)
        return np.log(table.predict(fits[key]) / table.ms)[of]

    found: dict[str, dict[str, object]] = {}
    for name in names:
        of, others = ~table.without(name), [other for other in names if other != name]
        measured, error = table.ms[of], errors(name, name)
        width = band({other: errors(other, other, name) for other in others}, COVERAGE)
        alike = [other for other in names if architectures[other] == architectures[name]]
        far = errors(name, *alike)
        found[name] = {
            "n": int(of.sum()),
            **agreement(measured * np.exp(error), measured),
            "bias": float(np.exp(np.median(error))),
            "covered": float((np.abs(error) <= width).mean()),
            "factor": float(np.exp(width)),
            "baselines": {key: agreement(scaled(x, table, ~of)[of], measured) for key, x in baselines.items()},
            "by_table": {
                str(source): agreement(
                    (measured * np.exp(error))[sources[of] == source], measured[sources[of] == source]
                )
                for source in np.unique(sources[of])
            },
            "without_architecture": agreement(measured * np.exp(far), measured),
        }
        print(name, json.dumps(found[name]), flush=True)
    return found


def shipped(table: Table, found: Sequence[Row]) -> dict[str, object]:
    """What the package reads: constants of all devices, the band of leaving each out, and what there was."""
    names = [str(name) for name in np.unique(table.devices)]
    left = {}
    for name in names:
        of = ~table.without(name)
        left[name] = np.log(table.predict(fit(table, ~of)) / table.ms)[of]
    networks = [graph(row.model, row.size) for row in found]
    columns = [features(net, 1) for net in networks]
    operators = sorted({op for net in networks for op in net.operators})
    return {
        "constants": asdict(fit(table, table.without())),
        "coverage": COVERAGE,
        "factor": float(np.exp(band(left, COVERAGE))),
        "devices": names,
        "architectures": sorted({str(device(name).gpu_architecture) for name in names}),
        "precisions": sorted({row.precision for row in found}),
        "operators": {op: max(net.operators.get(op, 0) for net in networks) for op in operators},
        "ranges": {key: [min(c[key] for c in columns), max(c[key] for c in columns)] for key in columns[0]},
        "sources": list(SOURCES),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("trtutils", type=Path)
    parser.add_argument("--write", action="store_true", help="the constants that edgekd estimate reads")
    options = parser.parse_args()
    start = time.perf_counter()
    found = list(rows(options.data, options.trtutils))
    measured, plain = [], {"FLOPs": [], "roofline": []}
    ones = Constants(1, 1, 1, 1, 0, 0, 0)
    for row in found:
        net, of = graph(row.model, row.size), device(row.device)
        kernels, bounds = work(net, row.precision), limits(of, row.precision)
        measured.append(Measured(row.device, kernels, bounds, row.ms))
        rate = bounds.int8_rate if row.precision == "int8" else bounds.float_rate
        plain["FLOPs"].append(2 * net.macs / (rate * 1e9))
        plain["roofline"].append(times(kernels, bounds, ones).total.sum())
    table = Table(measured)
    architectures = {name: str(device(name).gpu_architecture) for name in np.unique(table.devices)}
    sources = np.array([row.table for row in found])
    devices = evaluate(table, sources, {key: np.array(column) for key, column in plain.items()}, architectures)
    ships = shipped(table, found)
    if options.write:
        write_json(FILE, ships)
    figures = {
        "devices": devices,
        "networks": len({(row.model, row.size) for row in found}),
        "rows": len(found),
        "rho_of_09": sum(row["rho"] >= 0.9 for row in devices.values()),
        "covered": float(np.mean([row["covered"] for row in devices.values()])),
        "covered_rows": sum(row["covered"] * row["n"] for row in devices.values()) / len(found),
        "constants": ships["constants"],
        "factor": ships["factor"],
        "detectors_flops": check_detectors(),
        "seconds": time.perf_counter() - start,
    }
    print(json.dumps({key: value for key, value in figures.items() if key != "devices"}))
    record("latency_estimate", figures)


if __name__ == "__main__":
    main()
