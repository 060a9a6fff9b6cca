"""What a point of the space costs on the target: its whole graph measured, or a prediction.

A target calibrated on the space (`edgekd targets calibrate`) predicts from whole graphs it has measured. Any other, and
a point beyond those, is the sum of its operators, each measured when it is first met.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from edgekd.artifacts import ModelSpec
from edgekd.profile.device import Device
from edgekd.profile.graphs import build_network
from edgekd.profile.latency_table import LatencyTable, graph_latency_ms, operator_latency_ms
from edgekd.profile.operators import Operator, operators
from edgekd.search.latency_calibration import FITTED, load_calibration
from edgekd.search.predictor import count
from edgekd.search.spaces import Genotype, Space
from edgekd.stage import fingerprint

OPSET = 18


class Latency(Protocol):
    """Milliseconds at batch 1 on one thread of the target; the same answer every time it is asked."""

    def predict(self, genotype: Genotype) -> float:
        """The INT8 graph, estimated."""

    def operator(self, op: Operator) -> float:
        """What one of them adds."""

    def within(self, genotype: Genotype, limit_ms: float) -> bool:
        """Whether `predict` is at most the limit, found with as few measurements as that takes."""

    def measure(self, genotype: Genotype) -> float:
        """The whole INT8 graph."""

    def teacher(self, spec: ModelSpec) -> float:
        """The teacher's whole FP32 graph."""

    def model(self) -> dict[str, Any]:
        """What `predict` goes by: its name, what it was fitted to, and how far it was off there."""


class MeasuredLatency:
    """Latencies from the target's `LatencyTable`: what was measured once is not measured again."""

    def __init__(self, space: Space, device: Device) -> None:
        self.space, self.device, self.table = space, device, LatencyTable(device)
        self.calibration = load_calibration(self.table, space)
        self._known: dict[Operator, float] = {}
        self._beyond: dict[Genotype, str] = {}  # points that the calibration does not reach, and why

    def predict(self, genotype: Genotype) -> float:
        found = operators(self.space.network(genotype))
        fitted = self._fitted(genotype, found)
        return sum(map(self.operator, found)) if fitted is None else fitted

    def within(self, genotype: Genotype, limit_ms: float) -> bool:
        found = operators(self.space.network(genotype))
        fitted = self._fitted(genotype, found)
        if fitted is not None:
            return fitted <= limit_ms
        spent = 0.0
        # Known operators first: most points that are too slow are found out without measuring anything new.
        for op in sorted(found, key=lambda op: op not in self._known):
            spent += self.operator(op)
            if spent > limit_ms:
                return False
        return True

    def measure(self, genotype: Genotype) -> float:
        return graph_latency_ms(self.table, self.device, build_network(self.space.network(genotype), "int8"))

    def teacher(self, spec: ModelSpec) -> float:
        from edgekd.export import write_teacher

        architecture: list[Any] = [spec.source, spec.name, spec.num_classes, spec.input_shape, spec.kwargs]
        architecture += [spec.resize] if spec.resize is not None else []
        architecture += [spec.fingerprint()] if spec.source == "onnx" else []

        def export_and_measure() -> float:
            with tempfile.TemporaryDirectory(prefix="edgekd-") as directory:
                path = Path(directory) / "teacher.onnx"
                write_teacher(spec, path, OPSET)
                return graph_latency_ms(self.table, self.device, path)

        return self.table.get(f"teacher fp32 {fingerprint(architecture)}", export_and_measure)

    def model(self) -> dict[str, Any]:
        if self.calibration is None:
            return {"name": "operator sum"}
        return {
            "name": FITTED,
            "measurements": self.calibration.measurements,
            "check": asdict(self.calibration.check[FITTED]),
            "operator_sums": {"points": len(self._beyond), "first": next(iter(self._beyond.values()), None)},
        }

    def _fitted(self, genotype: Genotype, found: Sequence[Operator]) -> float | None:
        """What the calibration predicts; None without one, or where it would extrapolate."""
        if self.calibration is None:
            return None
        counts, predictor = count(found), self.calibration.predictor
        beyond = predictor.extrapolates(counts)
        if beyond is not None:
            self._beyond[genotype] = beyond
            return None
        return predictor.predict(counts).ms

    def operator(self, op: Operator) -> float:
        if op not in self._known:
            self._known[op] = operator_latency_ms(self.table, self.device, op)
        return self._known[op]

    def __enter__(self) -> MeasuredLatency:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.table.close()
