"""What `edgekd profile` and `edgekd estimate` found, on standard output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.render import emit, table
from edgekd.report import units

if TYPE_CHECKING:
    from edgekd.profile.estimate import LatencyEstimate

Row = Mapping[str, Any]
BLOCKS, KERNELS = 12, 5  # lines shown of a table


def latency(rows: Sequence[Row], out: Path | None, as_json: bool) -> None:
    """Percentiles by target and batch; below them what was asked for besides, and what a reader must know."""
    if as_json:
        emit(list(rows))
        return
    headings = {"artifact": "left", "target": "left", "batch": "right", "p50 ms": "right", "95 %": "right"}
    headings |= dict.fromkeys(("p90", "p95", "p99", "CoV %", "images/s", "n"), "right")
    lines = [
        [
            units.artifact(row["artifact"]),
            row["target"],
            str(row["batch"]),
            f"{row['p50_ms']:.4g}",
            _interval(row["p50_ci95_ms"]),
            *(f"{row[key]:.4g}" for key in ("p90_ms", "p95_ms", "p99_ms")),
            f"{row['cov_percent']:.1f}",
            f"{row['throughput_per_s']:,.0f}",
            f"{row['n']:,}",
        ]
        for row in rows
    ]
    table("", headings, lines)
    first = rows[0]["conditions"]
    print(f"{first['provider']}, {first['threads']} thread(s); transfers: {first['transfers']}")
    for row in rows:
        name = f"{units.artifact(row['artifact'])} on {row['target']}, batch {row['batch']}"
        _details(row, name)
        for warning in row["conditions"]["warnings"]:
            print(f"{name}: {warning}")
    if out is not None:
        print(f"page and samples: {out}")


def _details(row: Row, name: str) -> None:
    """Transfers, energy, scenario, accuracy, comparison and blocks, as far as they are there."""
    if row["phases_p50_ms"]:
        print(f"{name}: {', '.join(f'{key} {value:.4g} ms' for key, value in row['phases_p50_ms'].items())}")
    if (simulated := row["conditions"].get("simulated")) is not None:
        print(f"{name}: simulated: {simulated}")
    if (energy := row["conditions"].get("energy")) is not None:
        above = energy.get("energy_above_idle_mj")
        beyond = f", {above:.4g} mJ above idle" if above is not None else ""
        print(f"{name}: {energy['energy_mj']:.4g} mJ an image{beyond}; {energy['power_mw']:,} mW on {energy['rail']}")
    if (scenario := row["scenario"]) is not None:
        value = "-" if scenario["value"] is None else f"{scenario['value']:.4g} {scenario['unit']}"
        print(f"{name}: {scenario['name']}, {scenario['metric']}: {value} ({scenario['is']})")
        for text in scenario["short_of"]:
            print(f"  short of its rules: {text}")
    if (accuracy := row["accuracy"]) is not None:
        low, high = accuracy["ci95"]
        print(
            f"{name}: top-1 {units.percent(accuracy['value'])} ({100 * low:.2f} – {100 * high:.2f})"
            f" on {accuracy['n']:,} test images of {accuracy['data']}"
        )
    if "comparison" in row:
        found = row["comparison"]
        print(f"{name}: {'nothing to compare with' if found is None else found['says']}")
        for key, (then, now) in (found["differs"] if found else {}).items():
            print(f"  {key} was {then}, and is {now}")
    if row["blocks"]:
        largest = sorted(row["blocks"], key=lambda block: -block["ms"])
        lines = [[b["block"], str(b["layers"]), f"{b['ms']:.4f}", f"{b['share']:.1%}"] for b in largest[:BLOCKS]]
        rest = largest[BLOCKS:]
        if rest:
            ms, share = sum(b["ms"] for b in rest), sum(b["share"] for b in rest)
            lines.append([f"{len(rest)} more", "", f"{ms:.4f}", f"{share:.1%}"])
        columns = {"block": "left", "layers": "right", "ms": "right", "share": "right"}
        print(f"{name}, by its blocks")
        table("", columns, lines)


def _interval(bounds: Sequence[float] | None) -> str:
    return "-" if bounds is None else f"{bounds[0]:.4g} – {bounds[1]:.4g}"


def estimates(found: Sequence[LatencyEstimate], as_json: bool) -> None:
    """Estimated latencies, each with its band or the reasons why it has none, and the slowest kernels."""
    if as_json:
        emit([{**estimate.row(), "kernels": estimate.kernels} for estimate in found])
        return
    for estimate in found:
        print(f"{estimate.artifact} on {estimate.target}, {estimate.precision}, batch {estimate.batch}")
        if estimate.low_ms is not None and estimate.high_ms is not None:
            band = f"{estimate.low_ms:.3g} to {estimate.high_ms:.3g} ms in {estimate.coverage:.0%} of cases"
        else:
            band = "how far off is not known: it is outside of what was fitted"
        print(f"about {estimate.ms:.3g} ms, an estimate and no measurement; {band}")
        for reason in estimate.outside:
            print(f"  outside  {reason}")
        bounds = Counter[str]()
        for kernel in estimate.kernels:
            bounds[kernel["bound"]] += kernel["ms"]
        shares = ", ".join(f"{ms / estimate.ms:.0%} by {bound}" for bound, ms in bounds.most_common())
        print(f"{len(estimate.kernels)} kernels, bound {shares}; at the device's highest clocks")
        slowest = sorted(estimate.kernels, key=lambda kernel: -kernel["ms"])[:KERNELS]
        lines = [[k["name"], " ".join(k["operators"]), f"{k['ms']:.3g}", k["bound"]] for k in slowest]
        table("", {"slowest kernels": "left", "operators": "left", "ms": "right", "bound by": "left"}, lines)
