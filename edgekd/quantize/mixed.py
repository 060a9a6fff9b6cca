"""Mixed precision: which layers are worth keeping float, by what that gains and costs on the graph that ships.

Each layer in turn is left float in an otherwise quantized graph: its sensitivity is how much nearer the validation
logits come to those of the float student (KL), its cost how much slower the graph gets on the target. Layers are then
freed one after the other, those that gain most for a millisecond first (what gains and costs nothing comes before all),
and every step of that path is measured as a whole graph. The front is what no other step beats in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """One assignment: the layers left float, and what its graph does; accuracies in [0, 1] on validation images."""

    kept_float: tuple[str, ...]
    val_top1: float
    val_kl: float
    latency_ms: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Measure = Callable[[tuple[str, ...]], Point]


def sensitivity(layers: Sequence[str], base: Point, measure: Measure) -> list[dict[str, Any]]:
    """For every layer alone: what keeping it float takes from the KL, and adds to the milliseconds."""
    rows = []
    for layer in layers:
        point = measure((layer,))
        rows.append({"layer": layer, "kl": base.val_kl - point.val_kl, "latency_ms": point.latency_ms - base.latency_ms})
    return rows


def order(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Layers by gain over cost; those that gain nothing last."""

    def worth(row: dict[str, Any]) -> tuple[bool, float]:
        gain, cost = row["kl"], row["latency_ms"]
        if gain <= 0:
            return False, gain
        return True, gain / cost if cost > 0 else float("inf")

    return [row["layer"] for row in sorted(rows, key=worth, reverse=True)]


def walk(ordered: Sequence[str], base: Point, measure: Measure, steps: int) -> list[Point]:
    """Points along the path, `steps` of them at most beside the base, denser where few layers are float."""
    n = len(ordered)
    counts = sorted({round(n ** (i / (steps - 1))) for i in range(steps)}) if steps > 1 else [n]
    return [base, *(measure(tuple(ordered[:count])) for count in counts)]


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both top-1 and latency, the fastest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency_ms, -p.val_top1, p.val_kl)):
        if not kept or point.val_top1 > kept[-1].val_top1:
            kept.append(point)
    return kept


def choose(points: Sequence[Point], fp32_top1: float, budget: float) -> Point | None:
    """The fastest that loses at most `budget` of top-1 to the float student, or None."""
    good = [point for point in points if fp32_top1 - point.val_top1 <= budget]
    return min(good, key=lambda point: point.latency_ms, default=None)
