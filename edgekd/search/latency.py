"""What a point of the space costs on the target: a sum of measured operators, or its whole graph measured."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from edgekd.artifacts import ModelSpec
from edgekd.profile.devices import Device
from edgekd.profile.graphs import build_network
from edgekd.profile.latency_table import LatencyTable, graph_latency_ms, operator_latency_ms
from edgekd.profile.operators import Operator, operators
from edgekd.search.spaces import Genotype, Space
from edgekd.stage import fingerprint

OPSET = 18


class Latency(Protocol):
    """Milliseconds at batch 1 on one thread of the target; the same answer every time it is asked."""

    def predict(self, genotype: Genotype) -> float:
        """The INT8 graph's operators, summed."""

    def operator(self, op: Operator) -> float:
        """What one of them adds."""

    def within(self, genotype: Genotype, limit_ms: float) -> bool:
        """Whether `predict` is at most the limit, found with as few measurements as that takes."""

    def measure(self, genotype: Genotype) -> float:
        """The whole INT8 graph."""

    def teacher(self, spec: ModelSpec) -> float:
        """The teacher's whole FP32 graph."""


class MeasuredLatency:
    """Latencies from the target's `LatencyTable`: what was measured once is not measured again."""

    def __init__(self, space: Space, device: Device) -> None:
        self.space, self.device, self.table = space, device, LatencyTable(device)
        self._known: dict[Operator, float] = {}

    def predict(self, genotype: Genotype) -> float:
        return sum(self.operator(op) for op in operators(self.space.network(genotype)))

    def within(self, genotype: Genotype, limit_ms: float) -> bool:
        spent = 0.0
        # Known operators first: most points that are too slow are found out without measuring anything new.
        for op in sorted(operators(self.space.network(genotype)), key=lambda op: op not in self._known):
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
