"""report.html: one self-contained page, drawn from report.json alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgekd.report import STAGES, charts, latency, remarks, units

HERE = Path(__file__).parent
LINT_PAIRS = {"conv": "convolutions INT8", "add": "adds INT8", "gemm": "linear layers INT8"}
RANKED = 10  # candidates in the table; the chart shows them all
SENSITIVE = 15  # layers in the list


def render(report: dict[str, Any]) -> str:
    """The page. A pure function of `report`: equal reports give equal bytes."""
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            r=report,
            css=style(),
            charts={name: Markup(svg) for name, svg in _charts(report).items()},
            latency=latency.view(report["latency"]),
            stages=_stages(report),
            search=_search(report["search"]),
            slower=remarks.speed(report["verdict"]),
            quantize=_quantize(report["quantize"]),
            remarks=remarks.quantization(report),
            mixed=_mixed(report["quantize"]),
            parity=_compare(report["parity"]),
            lint={name: (remarks.lint(record), lint_lines(record)) for name, record in report["lint"].items()},
            counted=remarks.counted(report["quantize"]),
            conditions=[*_conditions(report["conditions"]), *latency.conditions(report["latency"], "latency: ")],
            config=yaml.safe_dump(report["config"], sort_keys=False, allow_unicode=True),
        )
    )


def environment() -> Environment:
    """Templates of this directory, with figures and their units."""
    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(
        {
            name: _unbroken(getattr(units, name))
            for name in ("percent", "points", "ms", "size", "count", "times", "rate", "seconds", "whole")
        },
        number=_unbroken(units.number),
        signed=units.signed,
        artifact=units.artifact,
        words=units.words,
    )
    made.globals["figure"] = units.figure
    made.globals["dash"] = units.DASH
    return made


def style() -> Markup:
    return Markup((HERE / "report.css").read_text())


def _unbroken(form: Callable[..., str]) -> Callable[..., str]:
    """A figure stays on one line with its unit."""
    return lambda value: form(value).replace(" ", "\N{NO-BREAK SPACE}")


def _charts(report: dict[str, Any]) -> dict[str, str]:
    out = {}
    if report["ledger"]:
        out["accuracy"] = charts.accuracy(report["ledger"])
        out["size"] = charts.size(report["ledger"])
    if report["search"] and len(report["search"].get("ranking") or ()) > 1:
        out["search"] = charts.search(report["search"])
    if report["distill"] and len(report["distill"]["history"]) > 1:
        out["training"] = charts.training(report["distill"]["history"])
    if report["quantize"] and (mixed := report["quantize"].get("mixed")):
        out["mixed"] = charts.mixed(mixed, report["quantize"]["fp32"]["val_top1"])
    return out


def _stages(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every stage of a run in order, those that have not run too; `share` in [0, 1] of the longest."""
    known = {row["name"]: row for row in report["stages"]}
    longest = max((row["seconds"] for row in known.values()), default=0) or 1
    names = [*known, *(name for name in STAGES if name not in known)]
    return [
        {
            "name": name,
            "ran": name in known,
            **known.get(name, {}),
            "share": known.get(name, {}).get("seconds", 0) / longest,
        }
        for name in names
    ]


def _search(search: dict[str, Any] | None) -> dict[str, Any] | None:
    """The best candidates and the baselines as one table by score; `kind` is chosen, baseline or ''."""
    if search is None:
        return None
    keys = ("space", "scorer", "scored", "seconds", "latency_limit_ms", "teacher_latency_ms", "tau_params", "chosen")
    chosen = search.get("chosen")
    rows = [{**row, "kind": ""} for row in (search.get("ranking") or [])[:RANKED]]
    match = next((row for row in rows if chosen and row.get("spec") == chosen.get("spec")), None)
    if match is not None:
        match["kind"] = "chosen"
    elif chosen:
        rows.append({**chosen, "kind": "chosen"})
    rows += [{**row, "kind": "baseline"} for row in search.get("baselines") or []]
    blank = dict.fromkeys(("score", "params", "macs", "latency_ms", "breaks"))
    rows = [{**blank, "measured": False, **row} for row in rows]
    rows.sort(key=lambda row: (row["score"] is None, -(row["score"] or 0)))
    return {
        "rows": [{**row, "label": charts.name_of(row, row["kind"] == "baseline")} for row in rows],
        "total": len(search.get("ranking") or []),
        **{key: search.get(key) for key in keys},
    }


def _quantize(quantize: dict[str, Any] | None) -> dict[str, Any] | None:
    """PTQ and QAD beside the float student, and what holds for both and is no remark."""
    if quantize is None:
        return None
    columns = {name: quantize[name] for name in ("fp32", "ptq", "qad") if isinstance(quantize.get(name), dict)}
    said = (*columns, "chosen", "simulated", "qad_skipped")
    rest = {key: value for key, value in quantize.items() if key not in said and _scalar(value)}
    if "val_kls" in columns.get("qad", {}):
        rest["qad_val_kls"] = columns["qad"]["val_kls"]
    return {
        "columns": list(columns),
        "chosen": quantize.get("chosen"),
        "lines": _compare(columns),
        "rest": [(units.words(key), units.figure(key, value)) for key, value in rest.items()],
    }


def _mixed(quantize: dict[str, Any] | None) -> dict[str, Any] | None:
    """The most sensitive layers, `share` in [0, 1] of the largest gain; `rest` others gain `least` at most."""
    mixed = quantize.get("mixed") if quantize else None
    if mixed is None:
        return None
    rows = sorted(mixed["layers"], key=lambda row: -row["kl"])
    shown, largest = rows[:SENSITIVE], max(rows[0]["kl"], 0) or 1
    kept = mixed["chosen"]["kept_float"]
    return {
        **mixed,
        "sensitive": [{**r, "share": max(r["kl"], 0) / largest, "kept": r["layer"] in kept} for r in shown],
        "rest": len(rows) - len(shown),
        "least": rows[SENSITIVE]["kl"] if len(rows) > SENSITIVE else None,
    }


def _compare(records: dict[str, dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Records as columns: a line for every plain figure that one of them has."""
    keys = dict.fromkeys(key for record in records.values() for key, value in record.items() if _scalar(value))
    return [(units.words(key), [units.figure(key, r.get(key)) for r in records.values()]) for key in keys]


def _scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and value != ""


def lint_lines(record: dict[str, Any]) -> list[tuple[str, list[str], str]]:
    """The counts and islands of a `LintReport.to_json()` as (what, figures, tag); the tag says how many are float."""
    lines = []
    for key, what in LINT_PAIRS.items():
        n, of = record[key]
        lines.append((what, [f"{n}/{of}" if of else "none in the graph"], f"{of - n} float" if n < of else ""))
    return [*lines, ("float islands", record["float_islands"] or ["none"], "")]


def _conditions(conditions: dict[str, Any]) -> list[tuple[str, str]]:
    """What every figure of a run was taken under."""
    out: dict[str, str] = {}
    for name in ("host", "versions"):
        record = conditions.get(name)
        if isinstance(record, dict):
            out |= {
                units.words(key) if name == "host" else key: units.figure(key, value) for key, value in record.items()
            }
        elif record is not None:
            out[name] = units.figure(name, record)
    out["seed"] = units.figure("seed", conditions.get("seed"))
    return list(out.items())
