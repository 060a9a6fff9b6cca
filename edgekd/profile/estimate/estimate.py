"""A latency for a graph on a device that is not there: an estimate with its error, never a measurement."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgekd.artifacts import Artifact
from edgekd.profile.device import Device
from edgekd.profile.devices import load_device
from edgekd.profile.estimate.kernels import Network, read_network
from edgekd.profile.estimate.roofline import Constants, Precision, limits, precision_of, times, work

FILE = Path(__file__).with_name("constants.json")


@dataclass(frozen=True)
class Fitted:
    """What `benchmarks/latency_estimate.py` learned from published tables, and what those held.

    `factor` is the error that holds with probability `coverage` on a device that was not fitted: latencies lie within
    a `factor` of the estimate either way. `ranges` are the least and most of all fitted networks, `operators` the most.
    """

    constants: Constants
    coverage: float
    factor: float
    devices: tuple[str, ...]
    architectures: tuple[str, ...]
    precisions: tuple[str, ...]
    operators: Mapping[str, int]
    ranges: Mapping[str, tuple[float, float]]
    sources: tuple[str, ...]
    date: str

    @classmethod
    @cache
    def read(cls) -> Fitted:
        """The constants that the package ships."""
        record: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(FILE.read_text()).items()
        }
        return cls(**{**record, "constants": Constants(**record["constants"])})

    def outside(self, network: Network, device: Device, batch: int, precision: Precision) -> list[str]:
        """In what this goes beyond all that was fitted; the band says nothing of such cases."""
        found = []
        if device.gpu_architecture not in self.architectures:
            found.append(
                f"no {device.gpu_architecture or device.name} GPU was fitted, only {', '.join(self.architectures)}"
            )
        if precision not in self.precisions:
            found.append(f"no {precision} engine was fitted")
        for operator, count in network.operators.items():
            if count > self.operators.get(operator, 0):
                found.append(f"{operator}: {count}, and fitted were at most {self.operators.get(operator, 0)}")
        for name, value in features(network, batch).items():
            low, high = self.ranges[name]
            if not low <= value <= high:
                span = f"{low:,.4g}" + (f" to {high:,.4g}" if high > low else "")
                found.append(f"{name}: {value:,.4g}, and fitted were {span}")
        return found


@dataclass(frozen=True)
class LatencyEstimate(Artifact):
    """`ms` for one call, in a band from `low_ms` to `high_ms` where it has one; `outside` says why it has none.

    `kernels` are rows of name, operators, ms, and what bounds it: arithmetic, memory or launch.
    """

    artifact: str
    target: str
    precision: str
    batch: int
    ms: float
    low_ms: float | None
    high_ms: float | None
    coverage: float
    outside: tuple[str, ...]
    kernels: tuple[dict[str, Any], ...]
    fitted: dict[str, Any]

    def row(self) -> dict[str, Any]:
        """The report's row: `measured` is false, and percentiles that nobody can estimate are not there."""
        return {
            "artifact": self.artifact,
            "target": self.target,
            "backend": "estimate",
            "precision": self.precision,
            "batch": self.batch,
            "p50_ms": self.ms,
            "p90_ms": None,
            "p99_ms": None,
            "mean_ms": None,
            "throughput_per_s": self.batch / (self.ms / 1e3),
            "n": 0,
            "measured": False,
            "conditions": {
                "low_ms": self.low_ms,
                "high_ms": self.high_ms,
                "coverage": self.coverage,
                "warnings": [f"outside of what the estimate was fitted on: {reason}" for reason in self.outside],
                "fitted": self.fitted,
            },
        }


def features(network: Network, batch: int) -> dict[str, float]:
    """What the ranges are of, by the words an answer uses."""
    pixels = math.prod(network.image[2:]) if len(network.image) == 4 else 0
    return {"batch": batch, "pixels": pixels, "GMACs": network.macs / 1e9, "kernels": len(network.kernels)}


def estimate(path: Path, target: str, *, batch: int = 1, precision: str | None = None) -> LatencyEstimate:
    """The latency of an ONNX file on a target, neither of which is run.

    `precision` is fp32, fp16 or int8; by default that of the file. Raises ModelError for a graph whose cost is not
    known, TargetError for a target without TensorRT or without the figures that are needed.
    """
    return estimate_network(read_network(path, batch), load_device(target), path.stem, batch, precision)


def estimate_network(
    network: Network, device: Device, name: str, batch: int = 1, precision: str | None = None
) -> LatencyEstimate:
    """The same of kernels that were read already."""
    fitted, chosen = Fitted.read(), precision_of(network, precision)
    taken = times(work(network, chosen), limits(device, chosen), fitted.constants)
    kernels = []
    for kernel, a, m, launch, ms in zip(network.kernels, *taken, taken.total, strict=True):
        bound = "launch" if launch >= max(a, m) else "arithmetic" if a >= m else "memory"
        kernels.append({"name": kernel.name, "operators": list(kernel.operators), "ms": float(ms), "bound": bound})
    ms, outside = float(taken.total.sum()), fitted.outside(network, device, batch, chosen)
    return LatencyEstimate(
        artifact=name,
        target=device.name,
        precision=chosen,
        batch=batch,
        ms=ms,
        low_ms=None if outside else ms / fitted.factor,
        high_ms=None if outside else ms * fitted.factor,
        coverage=fitted.coverage,
        outside=tuple(outside),
        kernels=tuple(kernels),
        fitted={"devices": list(fitted.devices), "sources": list(fitted.sources), "date": fitted.date},
    )
