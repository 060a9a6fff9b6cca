"""Latency rows for a page: charts, what was compared, the state of the machine, and what they were taken under."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from edgekd.report import charts, units

# Of a row's conditions, what is shown elsewhere, or of interest to who reads latency.json alone.
ELSEWHERE = (
    *("warnings", "cov_percent", "versions", "busy_cores", "busy_cores_before", "preempted", "wall_s", "runtime_s"),
    *("load_before", "load_after", "before", "after", "power_w", "warmup_runs", "warmup_stable", "simulated", "energy"),
)

Row = dict[str, Any]


def view(rows: Sequence[Row]) -> dict[str, Any]:
    """What the template wants of the rows; an estimate is in no chart, and has no machine."""
    measured = [row for row in rows if row["measured"]]
    return {
        "rows": rows,
        "targets": list(dict.fromkeys(row["target"] for row in rows)),
        "charts": [(Markup(svg), caption) for svg, caption in _charts(measured)],
        "blocks": [(Markup(svg), caption) for svg, caption in _blocks(measured)],
        "warnings": sorted({text for row in rows for text in row["conditions"].get("warnings") or ()}),
        "simulated": sorted(
            {str(row["conditions"]["simulated"]) for row in rows if row["conditions"].get("simulated")}
        ),
        "comparisons": [row for row in measured if row.get("comparison")],
        "scenarios": [row for row in measured if row.get("scenario")],
        "accuracies": [row for row in measured if row.get("accuracy")],
        "transfers": [row for row in measured if row.get("phases_p50_ms")],
        "energies": [row for row in measured if row["conditions"].get("energy")],
        "machine": _machine(measured),
    }


def conditions(rows: Sequence[Row], prefix: str = "", shown: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Label and value of every condition, once where it is the same in all rows; `shown` are wanted here as well."""
    out: dict[str, str] = {}
    for key in dict.fromkeys(key for row in rows for key in row["conditions"]):
        if key in ELSEWHERE and key not in shown:
            continue
        for row in rows:
            text = units.figure(key, row["conditions"].get(key))
            if all(other["conditions"].get(key) == row["conditions"].get(key) for other in rows):
                out[f"{prefix}{units.words(key)}"] = text
                break
            out[f"{prefix}{units.words(key)}, {row['artifact']}, batch {row['batch']}"] = text
    return list(out.items())


def _charts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Percentiles and distribution by batch size, of one target each, then the batch sizes together."""
    if len({row["target"] for row in rows}) != 1:
        return []  # bars of several devices on one axis say little
    sizes = sorted({row["batch"] for row in rows})
    found = [
        (charts.latency(rows, batch), f"Measured, batch {batch}: the bar ends at p50, the ticks are p90 and p99")
        for batch in sizes
    ]
    for batch in sizes:
        if any(row.get("quantiles_ms") for row in rows if row["batch"] == batch):
            found.append(
                (charts.distribution(rows, batch), f"Every call at batch {batch}: the share that took no longer")
            )
    if len(sizes) > 1:
        found.append((charts.batches(rows), "Time of an image by batch size, from p50 to p99"))
    if roofed := [row for row in rows if row.get("roofline")]:
        shares = [100 * charts.reached_tops(row) / _allowed_tops(row["roofline"]) for row in roofed]
        span = f"{min(shares):.2g} to {max(shares):.2g} %"
        found.append((charts.roofline(roofed), f"Roofline: {span} of what the datasheet's peaks allow"))
    return found


def _allowed_tops(roof: dict[str, float]) -> float:
    """The lower of the device's arithmetic and its memory's, at the graph's operations a byte."""
    return min(roof["peak_tops"], roof["gops"] / roof["mbytes"] * roof["bandwidth_gbs"])


def _blocks(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """One chart a model and target, of the smallest batch that was profiled."""
    first: dict[tuple[str, str], Row] = {}
    for row in sorted((row for row in rows if row.get("blocks")), key=lambda row: int(row["batch"])):
        first.setdefault((row["artifact"], row["target"]), row)
    return [
        (
            charts.blocks(row, f"blocks-{i}"),
            f"{units.artifact(row['artifact'])} on {row['target']}, batch {row['batch']}: where its time goes",
        )
        for i, row in enumerate(first.values())
    ]


def _machine(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Load, clock, temperature and power before and after, once for the models that were timed side by side."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for row in rows:
        now = row["conditions"]
        if "load_before" not in now or (row["target"], row["batch"]) in found:
            continue
        before, after = now.get("before") or {}, now.get("after") or {}
        gpus = [state.get("gpu") or {} for state in (before, after)]
        hot = [state.get("temperature_c") for state in (before, after)]
        hot_gpu = [gpu.get("temperature_c") for gpu in gpus]
        found[row["target"], row["batch"]] = {
            "target": row["target"],
            "batch": str(row["batch"]),
            "load": _pair([(now[key] or [None])[0] for key in ("load_before", "load_after")], "{:.2f}"),
            "others": units.DASH if now.get("busy_cores") is None else f"{now['busy_cores']:.2f} cores",
            "clock": _pair([state.get("clock_mhz") for state in (before, after)], "{:.0f} MHz"),
            "gpu_clock": _pair([gpu.get("sm_mhz") for gpu in gpus], "{:.0f} MHz"),
            "temperature": _pair(hot if hot_gpu == [None, None] else hot_gpu, "{:.0f} °C"),
            "power": units.DASH if now.get("power_w") is None else f"{now['power_w']:.1f} W",
        }
    return list(found.values())


def _pair(values: Sequence[float | None], form: str) -> str:
    """Before and after; a dash where the system does not say."""
    texts = [units.DASH if value is None else form.format(value) for value in values]
    return units.DASH if set(texts) == {units.DASH} else " → ".join(texts)
