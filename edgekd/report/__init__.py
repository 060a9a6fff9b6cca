"""The report: every figure of a run in `report.json`, and one page drawn from that file alone."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from statistics import median
from typing import Any

from edgekd.errors import RunDirectoryError
from edgekd.intervals import median_interval
from edgekd.stage import write_atomic, write_json

__all__ = ["build_report", "collect"]

STAGES = ("search", "distill", "quantize", "export", "profile")


def build_report(run: Path) -> dict[str, Any]:
    """Write `run/report.json` and `run/report.html`; returns the report.

    A stage that has not run leaves its keys empty (None or []), and the page says so. Raises RunDirectoryError when
    `run` holds no run.json.
    """
    from edgekd.report.html import render

    report = collect(run)
    write_json(run / "report.json", report)
    write_atomic(run / "report.html", render(report).encode())
    return report


def collect(run: Path) -> dict[str, Any]:
    """The report of a run directory: the keys of report.json, whose names are stable. Writes nothing.

    `teacher`, `search`, `ledger`, `latency` and `stages` are the contract; beside them `verdict` (what was gained,
    from measured rows alone), `target`, `data`, `distill`, `quantize`, `parity`, `lint`, `fidelity`, `conditions` and
    `config`.
    """
    record = _read(run / "run.json")
    if record is None:
        raise RunDirectoryError(f"{run} holds no run.json", "Name a directory that `edgekd compress --out` made.")
    stages = record.get("stages") or []
    current = {stage["name"]: stage["fingerprint"] for stage in stages}

    def stage_record(stage: str, file: str) -> Any:
        """None as well where the directory is of other inputs than this run's: figures of two runs are never mixed."""
        made = _read(run / stage / "stage.json")
        return _read(run / stage / file) if made and made["fingerprint"] == current.get(stage) else None

    search = stage_record("search", "search.json")
    history = stage_record("distill", "history.json")
    distilled = stage_record("distill", "distill.json") or {}
    quantize = stage_record("quantize", "quantize.json")
    exported = stage_record("export", "export.json") or []
    ledger = stage_record("export", "ledger.json") or []
    fidelity = stage_record("export", "fidelity.json")
    latency = stage_record("profile", "latency.json") or []
    config = record.get("config") or {}
    teacher = {"name": None, "top1": None, "params": None, "macs": None, **(record.get("teacher") or {})}
    if (row := find(ledger, "teacher")) is not None:
        teacher["top1"] = row["value"]
    return {
        "schema": 1,
        "target": Path(config["target"]).stem if "target" in config else None,  # a user's own is called as its file
        "data": record.get("data") or {"name": config.get("data")},
        "verdict": verdict(ledger, latency),
        "teacher": teacher,
        "search": search,
        "distill": None
        if history is None
        else {
            "history": history,
            "notes": distilled.get("notes", []),
            "pictures": [_picture(run / "distill" / name) for name in distilled.get("pictures", [])],
        },
        "quantize": quantize,
        "parity": {row["artifact"]: row["parity"] for row in exported if row.get("parity")},
        "lint": {row["artifact"]: row["lint"] for row in exported if row.get("lint")} or _lint(quantize),
        "ledger": ledger,
        "fidelity": fidelity,
        "latency": latency,
        "stages": stages,
        "conditions": {key: record.get(key) for key in ("seed", "host", "versions")},
        "config": config,
    }


def find(rows: list[dict[str, Any]], artifact: str, **fields: Any) -> dict[str, Any] | None:
    """The first row of `artifact` whose fields have these values."""
    wanted = {"artifact": artifact, **fields}
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), None)


def verdict(ledger: list[dict[str, Any]], latency: list[dict[str, Any]]) -> dict[str, Any]:
    """The shipped student against the teacher; what was not measured on both sides is None.

    `batch` is the smallest one that both were timed at; `speedup` and `size_ratio` are teacher / student;
    `students` holds what `compare` says of it and the student's graphs in other precisions.
    """
    out: dict[str, Any] = dict.fromkeys(
        ("artifact", "teacher_top1", "top1", "drop", "teacher_size_bytes", "size_bytes", "size_ratio")
        + ("batch", "threads", "teacher_p50_ms", "p50_ms", "speedup")
    )
    out["students"] = []
    measured = [row for row in latency if row.get("measured")]
    names = {row["artifact"]: None for row in (*ledger, *measured) if row["artifact"].startswith("onnx-")}
    shipped = sorted(names, key=lambda name: name == "onnx-fp32")  # the quantized one where there is one
    if not shipped:
        return out
    artifact = out["artifact"] = shipped[0]
    before, after = find(ledger, "teacher"), find(ledger, artifact)
    if before and after:
        out |= {"teacher_top1": before["value"], "top1": after["value"], "drop": before["value"] - after["value"]}
        out |= {"teacher_size_bytes": before["size_bytes"], "size_bytes": after["size_bytes"]}
        out["size_ratio"] = before["size_bytes"] / after["size_bytes"]
    batches = [row["batch"] for row in measured if row["artifact"] == artifact]
    common = [batch for batch in batches if find(measured, "teacher", batch=batch)]
    if common:
        batch = out["batch"] = min(common)
        slow, fast = find(measured, "teacher", batch=batch), find(measured, artifact, batch=batch)
        assert slow is not None and fast is not None
        out |= {"teacher_p50_ms": slow["p50_ms"], "p50_ms": fast["p50_ms"], "speedup": slow["p50_ms"] / fast["p50_ms"]}
        out["threads"] = fast["conditions"].get("threads")
    students = [row for row in measured if row["artifact"].startswith(("onnx-", "engine-"))]
    out["students"] = [
        compare(row, other)
        for row in students
        for other in students
        if row["artifact"] == artifact
        and other["precision"] != row["precision"]
        and all(other[key] == row[key] for key in ("target", "batch"))
    ]
    return out


def compare(row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The time of one graph over that of another, from their latency rows: below 1 the first is faster.

    `ratio` is the median over the turns that both took side by side and `ci95` its interval; where there are no such
    turns it is that of p50, and `ci95` None. `faster` is beyond the interval, where there is one.
    """
    ratio, interval = row["p50_ms"] / other["p50_ms"], None
    turns, others = row.get("turn_p50_ms") or (), other.get("turn_p50_ms") or ()
    if len(turns) == len(others) and row["conditions"].get("turns") == other["conditions"].get("turns"):
        ratios = [one / another for one, another in zip(turns, others, strict=True)]
        if (interval := median_interval(ratios)) is not None:
            ratio = median(ratios)
    return {
        "artifact": row["artifact"],
        "precision": row["precision"],
        "against": other["artifact"],
        "against_precision": other["precision"],
        "batch": row["batch"],
        "ratio": ratio,
        "ci95": None if interval is None else list(interval),
        "faster": (ratio if interval is None else interval[1]) < 1,
    }


def _lint(quantize: dict[str, Any] | None) -> dict[str, Any]:
    """The chosen model's lint as the quantize stage wrote it, where the export stage has written none."""
    if quantize is None:
        return {}
    chosen = quantize["chosen"]
    lint = quantize[chosen].get("lint")
    return {f"student-{chosen}": lint} if lint else {}


def _picture(file: Path) -> str:
    """A PNG as a data URI: the page is drawn from report.json alone."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _read(file: Path) -> Any:
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise RunDirectoryError(
            f"{file} is not JSON: {error}", f"Run `edgekd compress --force {file.parent.name}` again."
        ) from None
