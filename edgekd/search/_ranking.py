"""The ranking of a search: rows of search.json, and how much it says beyond the parameter count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekd.artifacts import ModelSpec
from edgekd.search.scorers import Score
from edgekd.search.spaces import Point


@dataclass(frozen=True)
class Candidate:
    """A scored point; `measured` says whether `latency_ms` is its whole graph's or a prediction."""

    point: Point
    score: Score
    latency_ms: float
    measured: bool = False

    def timed(self, latency_ms: float) -> Candidate:
        return replace(self, latency_ms=latency_ms, measured=True)


def row(candidate: Candidate, spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": str(candidate.point.genotype),
        "spec": spec.to_json(),
        "params": candidate.point.params,
        "macs": candidate.point.macs,
        "latency_ms": candidate.latency_ms,
        "measured": candidate.measured,
        "score": candidate.score.value,
        "spread": candidate.score.spread,
    }


def ranks(values: Sequence[float]) -> list[int]:
    """Each value's place when sorted, largest first, from 1; equal ones share the better place."""
    ordered = sorted(values, reverse=True)
    return [ordered.index(value) + 1 for value in values]


def pareto(candidates: Sequence[Candidate]) -> list[int]:
    """Places of those that no other beats in both score and latency, fastest first."""
    order = sorted(range(len(candidates)), key=lambda i: (candidates[i].latency_ms, -candidates[i].score.value))
    front: list[int] = []
    for i in order:
        if not front or candidates[i].score.value > candidates[front[-1]].score.value:
            front.append(i)
    return front
