"""A latency against one that was taken at another time: the ratio of the medians, and whether it is more than noise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import ConfigError

RESAMPLES = 2000
DRIFT = 0.02  # by which two runs of the same file may differ, clocks and memory being as they happen to be
LEAST_TURNS = 6  # fewer say nothing of their median with 95 %
SAME = ("cpu", "threads", "governor", "provider", "cuda_graph", "transfers", "clock", "versions")  # conditions

Row = Mapping[str, Any]


def read_base(path: Path) -> list[dict[str, Any]]:
    """The rows of `edgekd profile --json`, a latency.json or a report.json. Raises ConfigError for anything else."""
    fix = "Name what `edgekd profile --json` wrote, or a run's report.json."
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--compare {path} cannot be read: {error.strerror}", fix) from None
    except ValueError as error:
        raise ConfigError(f"--compare {path} is not JSON: {error}", fix) from None
    rows = record.get("latency") if isinstance(record, dict) else record
    needed = {"artifact", "target", "batch", "p50_ms", "measured", "conditions"}
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) and needed <= r.keys() for r in rows):
        raise ConfigError(f"--compare {path} has no rows of latency", fix)
    measured = [row for row in rows if row["measured"]]
    if not measured:
        raise ConfigError(f"--compare {path} has estimates alone, and they are no base", fix)
    return measured


def counterpart(row: Row, base: Sequence[Row]) -> Row | None:
    """The row of `base` with the same target and batch: of the same artifact, or the only one there is."""
    there = [other for other in base if (other["target"], other["batch"]) == (row["target"], row["batch"])]
    same = [other for other in there if other["artifact"] == row["artifact"]]
    if same:
        return same[0]
    return there[0] if len(there) == 1 else None


def compare(row: Row, base: Row) -> dict[str, Any]:
    """{against, base_p50_ms, ratio, ci95, significant, disturbed, differs, says} of a row and its counterpart.

    `ratio` is the time now over the time then, by the medians; below 1 it is faster. `ci95` is its percentile
    bootstrap interval (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13) over the medians of whole
    turns, since calls that follow one another are alike; None below six turns on a side. It knows the noise within the
    two measurements alone, so `significant` wants it to be `DRIFT` away from 1 besides. `disturbed` says that either
    was taken on a busy machine; what else differs between their conditions is listed in `differs`, and may be the
    reason instead.
    """
    ratio = row["p50_ms"] / base["p50_ms"]
    interval = _bootstrap(row.get("turn_p50_ms") or [], base.get("turn_p50_ms") or [])
    significant = interval is not None and (interval[0] > 1 + DRIFT or interval[1] < 1 - DRIFT)
    now, then = row["conditions"], base["conditions"]
    differs = {key: [then.get(key), now.get(key)] for key in SAME if then.get(key) != now.get(key)}
    for key in ("backend", "precision"):
        if row.get(key) != base.get(key):
            differs[key] = [base.get(key), row.get(key)]
    disturbed = any("machine was busy" in text for side in (now, then) for text in side.get("warnings") or ())
    return {
        "against": base["artifact"],
        "base_p50_ms": base["p50_ms"],
        "ratio": ratio,
        "ci95": interval,
        "significant": significant,
        "disturbed": disturbed,
        "differs": differs,
        "says": _sentence(ratio, interval, significant)
        + ("; the machine was busy for one of them" if disturbed else ""),
    }


def _bootstrap(turns: Sequence[float], others: Sequence[float]) -> list[float] | None:
    if min(len(turns), len(others)) < LEAST_TURNS:
        return None
    random = np.random.default_rng(0)

    def medians(values: Sequence[float]) -> Any:
        array = np.asarray(values, np.float64)
        return np.array([np.median(array[random.integers(0, len(array), len(array))]) for _ in range(RESAMPLES)])

    low, high = np.quantile(medians(turns) / medians(others), (0.025, 0.975))
    return [float(low), float(high)]


def _sentence(ratio: float, interval: list[float] | None, significant: bool) -> str:
    change = f"{abs(100 * (ratio - 1)):.1f} % {'slower' if ratio > 1 else 'faster'}"
    if interval is None:
        return f"{change}; too few turns to say how sure that is"
    low, high = (f"{100 * (bound - 1):+.1f}".replace("-", "−") for bound in interval)
    within = f"time {low} to {high} %, 95 % interval"
    if significant:
        return f"{change} ({within})"
    if interval[0] <= 1 <= interval[1]:
        return f"no difference beyond noise ({within})"
    return f"{change} ({within}), no more than two runs of one file may differ by"
