"""The ledger and the latencies as tables for a terminal, and what is to be said of quantization."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from edgekd.report import remarks, units


def ledger_table(report: dict[str, Any]) -> Table:
    """Accuracy, interval, agreement and size of every artifact of a report."""
    rows = report["ledger"]
    title = f"Ledger: top-1 on {units.whole(rows[0]['n'])} test images" if rows else "Ledger: not run"
    table = Table(title=title, title_justify="left")
    for name in ("artifact", "top-1", "95 % interval", "as teacher", "size", "measured by"):
        table.add_column(
            name, justify="left" if name in ("artifact", "measured by") else "right", no_wrap=name != "measured by"
        )
    for row in rows:
        low, high = row["ci95"]
        table.add_row(
            Text(units.artifact(row["artifact"])),
            units.percent(row["value"]),
            f"{100 * low:.2f} – {100 * high:.2f}",
            units.percent(row["agreement_with_teacher"]),
            units.size(row["size_bytes"]),
            Text(row["runtime"]),
        )
    return table


def latency_table(report: dict[str, Any]) -> Table:
    """Percentiles of every artifact and batch size; estimates say that they are."""
    rows = report["latency"]
    title = f"Latency on {report['target']}" if rows else "Latency: not run"
    table = Table(title=Text(title), title_justify="left")
    for name in ("artifact", "batch", "p50", "p90", "p99", "throughput", "n", "kind"):
        table.add_column(name, justify="left" if name in ("artifact", "kind") else "right", no_wrap=True)
    for row in rows:
        mark = "" if row["measured"] else "~"
        table.add_row(
            Text(units.artifact(row["artifact"])),
            str(row["batch"]),
            *(mark + units.ms(row.get(key)) for key in ("p50_ms", "p90_ms", "p99_ms")),
            mark + units.rate(row.get("throughput_per_s")),
            units.whole(row.get("n")) if row["measured"] else units.DASH,
            "measured" if row["measured"] else "estimate",
            style=None if row["measured"] else "dim italic",
        )
    return table


def remark_lines(report: dict[str, Any]) -> list[Text]:
    """Where quantization does not pay, what its figures are to be read with, and the lint; what is bad in red."""
    slower = remarks.speed(report["verdict"])
    lines = [Text(slower, "red")] if slower else []
    for remark in remarks.quantization(report):
        lines.append(Text(f"{remark.label}: {remark.text}", "red" if remark.bad else ""))
    for artifact, record in report["lint"].items():
        lines += [Text(f"wrong: {problem}", "red") for problem in record["problems"]]
        lines.append(Text(f"{units.artifact(artifact)}: {record['line']}; {remarks.lint(record).text}"))
    return lines
