"""Mixed precision: which layers are worth keeping float, by what that gains and costs on the graph that ships.

Each layer in turn is left float in an otherwise quantized graph: its sensitivity is how much nearer the validation
logits come to those of the teacher and the float student (KL), its cost how much slower the graph gets on the target.
Layers are then freed one after the other, those that gain most for a millisecond first (what gains and costs nothing
comes before all), and steps of that path are measured as whole graphs, the float one at its end. Of all that were
measured, the front is what no other beats in latency, top-1 and KL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

RUNS = 200  # timed runs of each graph
STEPS = 12  # along the path


@dataclass(frozen=True)
class Point:
    """One assignment: the layers left float, and what its graph does; accuracies in [0, 1] on validation images."""

    kept_float: tuple[str, ...]
    val_top1: float
    val_kl: float
    latency_ms: float


@dataclass(frozen=True)
class Mixed:
    """What a search found; `within_budget` is False where even the most accurate point loses more than allowed."""

    layers: list[dict[str, Any]]  # {layer, kl, latency_ms}: what keeping it float gains and costs
    points: list[Point]
    chosen: Point
    within_budget: bool

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "front": [asdict(point) for point in front(self.points)]}


Measure = Callable[[Sequence[tuple[str, ...]]], list[Point]]


def search(layers: Sequence[str], measure: Measure, fp32_top1: float, budget: float) -> Mixed:
    """The fastest assignment that loses at most `budget` of validation top-1 to `fp32_top1`, else the most accurate.

    `measure` takes several assignments at once, so that their latencies are taken side by side.
    """
    base, *alone = measure([(), *((layer,) for layer in layers)])
    rows = [
        {"layer": layer, "kl": base.val_kl - point.val_kl, "latency_ms": point.latency_ms - base.latency_ms}
        for layer, point in zip(layers, alone, strict=True)
    ]
    ordered = order(rows)
    points = measure([tuple(ordered[:count]) for count in steps(len(ordered))])
    good = [point for point in points if fp32_top1 - point.val_top1 <= budget]
    if good:
        return Mixed(rows, points, min(good, key=lambda point: point.latency_ms), True)
    return Mixed(rows, points, max(points, key=lambda point: (point.val_top1, -point.val_kl)), False)


def order(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Layers by gain over cost; those that gain nothing last."""

    def worth(row: dict[str, Any]) -> tuple[bool, float]:
        gain, cost = row["kl"], row["latency_ms"]
        if gain <= 0:
            return False, gain
        return True, gain / cost if cost > 0 else float("inf")

    return [row["layer"] for row in sorted(rows, key=worth, reverse=True)]


def steps(n: int) -> list[int]:
    """From 0 to n layers in at most `STEPS` + 1 counts, denser where few layers are float."""
    return sorted({0, n, *(round(n ** (i / (STEPS - 1))) for i in range(STEPS))})


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats, the fastest first: none is as good in latency, top-1 and KL and better in one of them.

    The KL counts because the top-1 of a few thousand images cannot tell apart assignments that differ by one layer.
    """

    def beats(p: Point, q: Point) -> bool:
        gains = (q.latency_ms - p.latency_ms, p.val_top1 - q.val_top1, q.val_kl - p.val_kl)
        return min(gains) >= 0 and max(gains) > 0

    kept = (q for q in points if not any(beats(p, q) for p in points))
    return sorted(kept, key=lambda point: (point.latency_ms, -point.val_top1))
