"""The latency predictor on networks it was not fitted to: a published table, and this machine's ONNX Runtime.

    python benchmarks/latency_predictor.py DATA [--draws 10] [--local 200 --measurements 300 --images 3 32 32]

DATA holds `nas/nasbench201_master.csv`: 12,554 cells measured on a Jetson TX2 by HW-NAS-Bench (Li et al. 2021; TensorRT
in FP32, one image). Each draw fits to 300 random cells and tests on all others. Two baselines stand beside: a line
through the published FLOPs, and a ridge regression on what operation is on which of the six edges. The operators that
`edgekd.search.predictor` is given are either the network that the space `nasbench201` builds, or what those engines
seem to have run: an operation whose result is used runs even on zeros, and a node adds every term but the one from the
cell's input, zeros too, where a convolution adds its own.

That rule was found by looking at this table: the cells tested on are held out of the fit, but not of the rule. Where a
cell leaves no edge out there are no zeros, and the space's network is what ran: these cells have a table of their own.
With `--local`, cifar-resnet students are measured here as whole INT8 graphs: some to fit to, and others to test on.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from _record import record
from numpy.typing import NDArray

from edgekd.models.nasbench201 import CELLS, EDGES, WIDTHS, parse
from edgekd.profile.devices import load_device
from edgekd.profile.graphs import build_network
from edgekd.profile.latency_table import LatencyTable, graph_latency_ms, network_latency_ms
from edgekd.profile.operators import Conv, Input, Operator, operators
from edgekd.search._agreement import agreement
from edgekd.search.latency_calibration import draw
from edgekd.search.predictor import Counts, LatencyPredictor, Measurement, count, fit_macs
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace
from edgekd.search.spaces.nasbench201 import CHOICES, CONV1, CONV3, NONE, SKIP, NasBench201Space

FITTED_TO = 300
IMAGES = (3, 32, 32)
RIDGE = 0.1
HEADINGS = ("", "rho", "within 5 %", "within 10 %", "median error")

Array = NDArray[np.float64]
Places = NDArray[np.int64]
Fit = Callable[[Places], Array]  # from the networks to fit to, by place, to a prediction for all


@dataclass(frozen=True)
class Term(Operator):
    """An operation on an edge of the cell, [width, side, side]; `adds` to what its node has already."""

    operation: str
    edge: tuple[int, int]
    adds: bool
    width: int
    side: int

    @property
    def family(self) -> str:
        return self.operation + (" added" if self.adds else "")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.width, self.side, self.side

    @property
    def weights(self) -> int:
        return self.width**2 * {CONV1: 1, CONV3: 9}.get(self.operation, 0)

    @property
    def macs(self) -> int:
        return self.weights * self.side**2


def engine(operations: tuple[str, ...]) -> Counts:
    """What a TX2 engine of the cell seems to have run."""
    reached, needed = {0}, {3}
    chosen = list(zip(EDGES, operations, strict=True))
    for (a, b), op in chosen:  # EDGES is in topological order
        reached |= {b} if op != NONE and a in reached else set()
    for (a, b), op in reversed(chosen):
        needed |= {a} if op != NONE and b in needed else set()
    if 3 not in reached:
        return count([Input(*IMAGES)])  # nothing of the image is left
    found: list[Operator] = [Input(*IMAGES), Conv(3, WIDTHS[0], 3, 1, *IMAGES[1:])]
    for stage, width in enumerate(WIDTHS):
        for (a, b), op in chosen:
            if b in needed and (a > 0 or op not in (NONE, SKIP)):
                found += [Term(op, (a, b), a > 0, width, IMAGES[1] >> stage)] * CELLS
    return count(found)


def least_squares(inputs: Array, measured: Array, shrinkage: float) -> Fit:
    """Ridge regression on inputs [n, F] and a constant, which is not shrunk."""
    columns = np.column_stack([np.ones(len(inputs)), inputs])
    penalty = shrinkage * np.diag([0.0, *[1.0] * inputs.shape[1]])

    def fit(places: Places) -> Array:
        x = columns[places]
        weights: Array = np.linalg.solve(x.T @ x + penalty, x.T @ measured[places])
        return columns @ weights

    return fit


def fitted(counts: Sequence[Counts], measured: Array) -> Fit:
    def fit(places: Places) -> Array:
        predictor = LatencyPredictor([Measurement(counts[i], float(measured[i])) for i in places])
        return np.array([predictor.predict(found).ms for found in counts])

    return fit


def tx2(rows: Sequence[dict[str, str]], draws: int) -> dict[str, dict[str, list[float]]]:
    """Mean and deviation over the draws, of every figure and way to predict."""
    cells = [parse(row["arch_str"]) for row in rows]
    measured = np.array([float(row["tx2_trt_fp32_ms"]) for row in rows])
    flops = np.array([[float(row["flops_M"])] for row in rows])
    edges = np.array([[op == choice for op in cell for choice in CHOICES if choice != NONE] for cell in cells], float)
    space = NasBench201Space(10, IMAGES)
    networks = [count(operators(space.network(Genotype(operations=cell)))) for cell in cells]
    ways = {
        "FLOPs alone": least_squares(flops, measured, 0.0),
        "ridge on edges": least_squares(edges, measured, RIDGE),
        "predictor, space": fitted(networks, measured),
        "predictor, engine": fitted([engine(cell) for cell in cells], measured),
    }
    results: dict[str, dict[str, list[float]]] = {}
    for name, fit in ways.items():
        found = []
        for seed in range(draws):
            order = np.random.default_rng(seed).permutation(len(rows))
            predictions, rest = fit(order[:FITTED_TO]), order[FITTED_TO:]
            found.append(asdict(agreement(predictions[rest], measured[rest])))
        columns = {key: [figures[key] for figures in found] for key in found[0] if key != "n"}
        results[name] = {key: [float(np.mean(column)), float(np.std(column))] for key, column in columns.items()}
    return results


def local(students: int, measurements: int, images: tuple[int, int, int]) -> dict[str, object]:
    """Everything is measured afresh, whatever the cache holds, so that all of it was taken under the same load."""
    device = load_device("x86-cpu")
    space = CifarResNetSpace(10, images, device)
    fitted_to = draw(space, measurements, random.Random(0))
    known = set(fitted_to)
    points = [point for point in draw(space, 2 * students, random.Random(1)) if point not in known]
    points = random.Random(2).sample(points, students)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory, LatencyTable(device, Path(directory)) as table:

        def measure(point: Genotype) -> Measurement:
            network = space.network(point)
            ms = graph_latency_ms(table, device, build_network(network, "int8"))
            return Measurement(count(operators(network)), ms)

        tests = [measure(point) for point in points]
        start = time.perf_counter()
        fitting = [measure(point) for point in fitted_to]
        predictor, line = LatencyPredictor(fitting), fit_macs(fitting)
        seconds["fitted predictor"] = time.perf_counter() - start
        start = time.perf_counter()
        sums = [network_latency_ms(table, device, space.network(point)) for point in points]
        seconds["operator sum"] = time.perf_counter() - start
    measured = [test.ms for test in tests]
    predictions = [predictor.predict(test.counts) for test in tests]
    off = [abs(p.ms - ms) / p.error_ms for p, ms in zip(predictions, measured, strict=True)]
    rows = {
        "MACs alone": agreement([line(test.counts) for test in tests], measured),
        "operator sum": agreement(sums, measured),
        "fitted predictor": agreement([p.ms for p in predictions], measured),
    }
    return {
        "students": students,
        "measurements": len(fitted_to),
        "images": list(images),
        "ms": [min(measured), max(measured)],
        "seconds": seconds,
        "extrapolated": sum(predictor.extrapolates(test.counts) is not None for test in tests),
        "within_2_standard_errors": float(np.mean([z <= 2 for z in off])),
        "rows": {name: asdict(row) for name, row in rows.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--local", type=int, default=0, metavar="N")
    parser.add_argument("--measurements", type=int, default=FITTED_TO)
    parser.add_argument("--images", type=int, nargs=3, default=IMAGES)
    options = parser.parse_args()
    figures: dict[str, object] = {}
    with (options.data / "nas/nasbench201_master.csv").open() as file:
        cells = [row for row in csv.DictReader(file) if row["tx2_trt_fp32_ms"]]
    full = [row for row in cells if NONE not in row["arch_str"]]
    for which, rows in {"all": cells, "every edge used": full}.items():
        table = tx2(rows, options.draws)
        figures[f"tx2, {which}"] = {"cells": len(rows), "fitted_to": FITTED_TO, "draws": options.draws, "rows": table}
        print(f"Jetson TX2, {len(rows):,} cells, fitted to {FITTED_TO}; mean and deviation of {options.draws} draws")
        print("{:<18}{:>16}{:>18}{:>18}{:>18}".format(*HEADINGS))
        for name, row in table.items():
            (rho, s0), (five, s1), (ten, s2), (off, s3) = row.values()
            print(f"{name:<18}{rho:8.3f} ± {s0:.3f}{five:10.1%} ± {s1:.1%}{ten:10.1%} ± {s2:.1%}{off:10.1%} ± {s3:.1%}")
        print()
    if options.local:
        found = local(options.local, options.measurements, tuple(options.images))
        figures["local"] = found
        print(f"this machine: {json.dumps({key: value for key, value in found.items() if key != 'rows'})}")
        print("{:<18}{:>8}{:>12}{:>12}{:>14}".format(*HEADINGS))
        for name, row in found["rows"].items():
            print(
                f"{name:<18}{row['rho']:8.3f}{row['within_5']:12.1%}{row['within_10']:12.1%}{row['median_error']:14.2%}"
            )
    record("latency_predictor", figures)


if __name__ == "__main__":
    main()
