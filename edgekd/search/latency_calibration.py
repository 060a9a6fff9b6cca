"""A latency predictor for one space on one target: points drawn, measured as whole graphs, fitted and checked.

What is kept is the measurements, beside the target's latency table; the fit follows from them whenever they are read.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.catalog import SPACES, find
from edgekd.errors import BackendError, ConfigError
from edgekd.profile.abilities import require_searchable
from edgekd.profile.devices import load_device
from edgekd.profile.graphs import build_network
from edgekd.profile.latency_table import LatencyTable, graph_latency_ms
from edgekd.profile.operators import operators
from edgekd.progress import Progress
from edgekd.search._agreement import Agreement, agreement
from edgekd.search.predictor import LatencyPredictor, Measurement, count, fit_macs
from edgekd.search.spaces import Genotype, Space
from edgekd.stage import write_json

MACS, FITTED = "MACs alone", "fitted predictor"
FEWEST = 40  # points: a tenth of them still says something
HELD_OUT = 10  # one measurement in ten checks the fit of the others
WORTH = 0.5  # least share of these within 10 % of what was measured
PATIENCE = 50  # draws for a size before it is given up: a small space runs out of points


@dataclass(frozen=True)
class Calibration:
    """A predictor, and how well it and a line through the MACs did on the points held out of a first fit."""

    predictor: LatencyPredictor
    measurements: int
    check: dict[str, Agreement]


def calibrate(
    target: str,
    name: str,
    *,
    measurements: int = 300,
    classes: int | None = None,
    images: tuple[int, int, int] | None = None,
    seed: int = 0,
    progress: Progress,
) -> dict[str, Any]:
    """Measure points of space `name` on `target` and keep what a search there predicts latencies from.

    `classes` and `images` (C, H, W) are by default those of the task the space is known for; a search of another task
    does not use it. A killed call goes on with what it has measured. Raises ConfigError, TargetError, and BackendError
    where the points held out are predicted too badly.
    """
    row = find(SPACES, "--space", name)
    device = load_device(target)
    require_searchable(device)
    space: Space = row.load()(classes or row.classes, images or row.images, device)
    points = draw(space, measurements, random.Random(seed))
    if len(points) < FEWEST:
        raise ConfigError(
            f"--measurements {measurements}: {len(points)} points of {name} do not make a predictor",
            f"It takes {FEWEST}: set it higher, or choose a space that has as many.",
        )
    with LatencyTable(device) as table, progress.task("calibrate", len(points)) as task:
        measured = []
        for point in points:
            network = space.network(point)
            ms = graph_latency_ms(table, device, build_network(network, "int8"))
            measured.append(Measurement(count(operators(network)), ms))
            task.advance()
    calibration = fit(measured)
    record = {
        "target": device.name,
        "space": name,
        "classes": space.num_classes,
        "images": list(space.input_shape),
        "measurements": len(points),
        "check": {name: asdict(figures) for name, figures in calibration.check.items()},
        **calibration.predictor.law(),
    }
    path = path_of(table, space)
    measured_ms = {str(point): measurement.ms for point, measurement in zip(points, measured, strict=True)}
    write_json(path, {"identity": table.identity, **record, "measured_ms": measured_ms})
    return {**record, "path": str(path)}


def load_calibration(table: LatencyTable, space: Space) -> Calibration | None:
    """What `calibrate` kept for this target, space, classes and images, or None. Raises BackendError."""
    path = path_of(table, space)
    try:
        record = json.loads(path.read_text())
        measured = [
            Measurement(count(operators(space.network(space.read(text)))), ms)
            for text, ms in record["measured_ms"].items()
        ]
        check = {name: Agreement(**figures) for name, figures in record["check"].items()}
        return Calibration(LatencyPredictor(measured), len(measured), check)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError, BackendError):
        raise BackendError(
            f"the latency calibration {path} is damaged",
            f"Delete it, or make it again: edgekd targets calibrate {table.device.name} --space {space.name}.",
        ) from None


def path_of(table: LatencyTable, space: Space) -> Path:
    shape = "x".join(map(str, space.input_shape))
    return table.path.with_name(f"{table.path.stem}-{space.name}-{space.num_classes}-{shape}.json")


def draw(space: Space, number: int, generator: random.Random) -> list[Genotype]:
    """Up to `number` points, sizes evenly spread from the smallest point's to a large one's, by the ratio of MACs.

    Each is a random point that shrinks until it is no larger than the next size: a search under a limit gets its points
    so, and drawn uniformly hardly any would be small.
    """
    smallest = space.smallest()
    largest = max((space.sample(generator) for _ in range(number)), key=lambda point: space.point(point).macs)
    found = {smallest: None, largest: None}
    for size in np.geomspace(space.point(smallest).macs, space.point(largest).macs, number)[1:-1]:
        for _ in range(PATIENCE):
            point = _shrunk(space, space.sample(generator), float(size), generator)
            if point not in found:
                found[point] = None
                break
    return list(found)


def fit(measurements: Sequence[Measurement]) -> Calibration:
    """Fitted to nine in ten and checked on the rest, then fitted to all. Raises BackendError."""
    first: list[Measurement] = []
    held_out: list[Measurement] = []
    for i, measurement in enumerate(measurements):
        (held_out if i % HELD_OUT == HELD_OUT // 2 else first).append(measurement)
    measured = [m.ms for m in held_out]
    line, predictor = fit_macs(first), LatencyPredictor(first)
    check = {
        MACS: agreement([line(m.counts) for m in held_out], measured),
        FITTED: agreement([predictor.predict(m.counts).ms for m in held_out], measured),
    }
    if check[FITTED].within_10 < WORTH:
        raise BackendError(
            f"of {len(held_out)} points held out, the fitted latency predictor is within 10 % for only "
            f"{check[FITTED].within_10:.0%}: it is not kept",
            "Calibrate with more measurements, while nothing else runs on the target.",
        )
    return Calibration(LatencyPredictor(measurements), len(measurements), check)


def _shrunk(space: Space, point: Genotype, macs: float, generator: random.Random) -> Genotype:
    while space.point(point).macs > macs:
        smaller = space.shrink(point, generator)
        if smaller == point:
            break
        point = smaller
    return point
