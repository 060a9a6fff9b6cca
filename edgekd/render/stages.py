"""What a run and its stages print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.render import console, emit, records, table


def plan(stages: Sequence[Any], out: Path, as_json: bool) -> None:
    plain = records(stages)
    if as_json:
        emit(plain)
        return
    lines = []
    for stage in plain:
        estimate = "-" if stage["cached"] or stage["estimate_s"] is None else f"{stage['estimate_s']:.0f} s"
        lines.append([stage["name"], "cached" if stage["cached"] else "to do", estimate, stage["note"]])
    table(f"plan for {out}", {"stage": "left", "state": "left", "estimate": "right", "note": "left"}, lines)
    known = [stage["estimate_s"] for stage in plain if not stage["cached"] and stage["estimate_s"] is not None]
    print(f"about {sum(known):.0f} s; nothing was written")


def report(record: Mapping[str, Any], run: Path, as_json: bool) -> None:
    """The ledger, the latencies, what is to be said of quantization, the stages, and where the page is."""
    if as_json:
        emit(record)
        return
    from edgekd.report.terminal import latency_table, ledger_table, remark_lines

    for key, drawn in (("ledger", ledger_table), ("latency", latency_table)):
        if record.get(key):
            console().print(drawn(dict(record)))
    for line in remark_lines(dict(record)):
        console().print(line)
    stages = record.get("stages", [])
    for stage in stages:
        cost = "cached" if stage["cached"] else f"{stage['seconds']:.1f} s"
        print(f"{stage['name']:<10} {cost}")
    if stages and all(stage["cached"] for stage in stages):
        print("every stage was there already: nothing was done")
    page = run / "report.html"
    print(f"report: {page}" if page.is_file() else f"run: {run}")


def explanation(record: Mapping[str, Any], as_json: bool) -> None:
    """Why a search ranks an architecture where it does."""
    if as_json:
        emit(record)
        return
    print(record["name"])
    print(f"{record['params']:,} parameters, {record['macs']:,} MACs, depth {record['depth']}")
    legal = f"breaks {record['breaks']}" if record["breaks"] else "holds every limit"
    print(f"rank {record['rank']} of {record['of']}, score {record['score']:.4g}; {legal}\n")
    rows = [[t["term"], f"{t['value']:.5g}", str(t["rank"])] for t in record["terms"]]
    table("terms", {"term": "left", "value": "right", f"rank of {record['of']}": "right"}, rows)
    rows = [[r["layer"], str(r["count"]), f"{r['ms']:.4f}", f"{r['share']:.0%}"] for r in record["layers"]]
    columns = {"layer": "left", "times": "right", "ms": "right", "share": "right"}
    table(f"latency {record['latency_ms']:.3g} ms, operator by operator", columns, rows)


def artifact(item: Any, as_json: bool) -> None:
    """Where an artifact is, and what it says of itself."""
    record = item.to_json()
    if as_json:
        emit(record)
    else:
        print(record["path"])


def bundle(manifest: Mapping[str, Any], out: Path, as_json: bool) -> None:
    """What is in a new bundle, and what to do with it."""
    if as_json:
        emit({"path": str(out), **manifest})
        return
    names = ", ".join(model["name"] for model in manifest["models"])
    print(f"{out}: {names} for {manifest['target']['name']}, {len(manifest['files'])} files")
    print(f"next: edgekd verify {out}")
