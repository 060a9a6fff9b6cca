"""Results on standard output: tables for people, JSON for programs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from edgekd.profile.devices import Device, Figure


def emit(record: Any) -> None:
    print(json.dumps(record, indent=2, default=str))


def records(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Dataclasses or mappings as plain dictionaries."""
    return [asdict(item) if is_dataclass(item) and not isinstance(item, type) else dict(item) for item in items]


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 140)


def table(title: str, columns: Mapping[str, str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table; `columns` maps each heading to its alignment, left or right."""
    from rich import box
    from rich.table import Table

    drawn = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, align in columns.items():
        drawn.add_column(heading, justify="right" if align == "right" else "left", overflow="fold")
    for line in lines:
        drawn.add_row(*line)
    _console().print(drawn)


def rows(items: Sequence[Any], as_json: bool, title: str = "") -> None:
    """Any rows, one column a key."""
    plain = records(items)
    if as_json:
        emit(plain)
        return
    plain = [{key: value for key, value in row.items() if key != "target"} for row in plain]  # catalogue: import string
    columns = dict.fromkeys((key for row in plain for key in row), "left")
    table(title, columns, [[cell(row.get(key)) for key in columns] for row in plain])


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items()) or "-"
    return str(value)


def space(record: Mapping[str, Any], as_json: bool) -> None:
    """Genes, named points and rules of a space."""
    if as_json:
        emit(record)
        return
    channels, height, width = record["images"]
    print(f"{record['name']}: {record['summary']}")
    print(f"{record['points']:,} points; costs for {record['classes']} classes of {channels} x {height} x {width}\n")
    genes = []
    for name, gene in record["genes"].items():
        places, note = gene["choices"], "never falls" if gene["rising"] else ""
        if len(places) > 1 and all(choices == places[0] for choices in places):
            genes.append([f"{name} 1-{len(places)}", cell(places[0]), note])
        else:
            numbered = enumerate(places, 1) if len(places) > 1 else (("", choices) for choices in places)
            genes += [[f"{name} {i}", cell(choices), note] for i, choices in numbered]
    table("genes", {"place": "left", "choices": "left", "": "left"}, genes)
    named = [[name, f"{p['params']:,}", f"{p['macs']:,}", str(p["depth"])] for name, p in record["named"].items()]
    table("named points", {"name": "left", "params": "right", "MACs": "right", "depth": "right"}, named)
    rules = [[r["scheme"], _few(r["targets"]), r["name"], r["reason"]] for r in record["rules"]]
    table("channels", {"scheme": "left", "targets": "left", "rule": "left", "why": "left"}, rules)


def _few(names: Sequence[str]) -> str:
    return cell(names) if len(names) <= 3 else f"{len(names)} of `edgekd targets`"


def point(record: Mapping[str, Any], as_json: bool) -> None:
    """The cost of a legal point."""
    if as_json:
        emit(record)
        return
    print(record["genotype"])
    print(f"{record['params']:,} parameters, {record['macs']:,} MACs, depth {record['depth']}")


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


def method(record: Mapping[str, Any], as_json: bool) -> None:
    """A method's formula and sources as its module says them, what it needs, and its options."""
    if as_json:
        emit(dict(record))
        return
    print(f"{record['name']}: {record['summary']}\n\n{record['formula']}\n")
    shown = ("family", "paper", "needs", "replay", "owns_labels", "min_classes", "ships_extra", "anchor")
    for key in shown:
        print(f"{key.replace('_', ' '):<12} {cell(record[key])}")
    if record["refuses"]:
        print(f"{'refuses':<12} {cell(list(record['refuses']))}")
    print("options")
    for name, default in record["options"].items():
        short = float(f"{default:.5g}") if isinstance(default, float) else default  # 1/12 has no end
        print(f"  {name} = {short!r}")


def calibration(record: Mapping[str, Any], as_json: bool) -> None:
    """How well a latency predictor did on the points held out, what it says of the device, and where it is."""
    if as_json:
        emit(record)
        return
    check = record["check"]
    held_out = next(iter(check.values()))["n"]
    print(f"{record['measurements']} points of {record['space']} on {record['target']}; {held_out} of them held out:")
    headings = ("by", "rho", "within 5 %", "within 10 %", "median error")
    lines = [
        [name, f"{f['rho']:.3f}", f"{f['within_5']:.1%}", f"{f['within_10']:.1%}", f"{f['median_error']:.2%}"]
        for name, f in check.items()
    ]
    table("", {heading: "left" if heading == "by" else "right" for heading in headings}, lines)
    families = [
        [name, f"{1e3 * f['launch_ms']:.1f}", f"{1e-6 / f['ms_per_mac']:.0f}" if f["ms_per_mac"] else "-"]
        for name, f in record["families"].items()
    ]
    table("fitted", {"operators": "left", "launch, us": "right", "GMAC/s": "right"}, families)
    print(f"{record['balance']:g} MACs in the time of a number moved; a measurement varies by {record['noise']:.1%}")
    print(f"kept in {record['path']}")


KINDS = {"cpu": "processors", "jetson": "Jetson modules", "gpu": "GPUs"}


def targets(devices: Sequence[Device], as_json: bool) -> None:
    """The devices by kind, with what a student is chosen by; at most 100 columns."""
    if as_json:
        emit([device.to_json() for device in devices])
        return
    numbers = ("memory", "memory_bandwidth", "peak_fp16", "peak_int8")
    headings = {"name": "left", "SM": "left", "GB": "right", "GB/s": "right", "FP16": "right", "INT8": "right"}
    for kind, title in KINDS.items():
        lines = [
            [
                device.name,
                device.sm or "-",
                *(_number(device.figures.get(name)) for name in numbers),
                " ".join(device.formats),
            ]
            for device in sorted(devices, key=lambda device: (device.compute_capability or 0, device.name))
            if device.kind == kind
        ]
        table(f"{title} (kind {kind})", {**headings, "formats": "left"}, lines)
    print("FP16 and INT8 are dense peaks in T(FL)OP/s; `edgekd targets show NAME` says where figures are from")
    print("students are searched for processors so far; GPUs and Jetsons can be built for and profiled")


def _number(value: Figure | float | None) -> str:
    return "-" if value is None else f"{value if isinstance(value, int | float) else value.value:.6g}"


def target(device: Device, as_json: bool) -> None:
    """Everything a profile says, every figure with its unit and source, and what JetPack brings to the device."""
    from edgekd.profile.jetpack import releases

    found = releases(device)
    if as_json:
        emit({**device.to_json(), "jetpacks": records(found)})
        return
    print(f"{device.name}: {device.title}\n")
    gpu = f"{device.gpu_architecture or 'unknown'}, {device.sm}" if device.sm else None
    facts = {
        "kind": device.kind,
        "backend": device.backend,
        "scheme": device.scheme,
        "processor": device.architectures,
        "requires": device.requires,
        "gpu": gpu,
        "formats": device.formats,
    }
    for key, value in facts.items():
        if value:
            print(f"{key:<10} {cell(value)}")
    for key, versions in (("tensorrt", device.tensorrt), ("jetpack", device.jetpack)):
        if versions is not None:
            print(f"{key:<10} {versions.min} to {versions.max or 'any later'} [{versions.source}]")
    if device.figures:
        columns = {"figure": "left", "value": "right", "unit": "left", "source": "left", "note": "left"}
        lines = [
            [name.replace("_", " "), _number(figure), figure.unit, figure.source, figure.note]
            for name, figure in device.figures.items()
        ]
        table("\nfigures", columns, lines)
    if device.power_modes:
        headings = ("mode", "nvpmodel", "W", "GPU GHz", "source", "note")
        lines = [
            [mode.name, *map(_number, (mode.id, mode.watts, mode.gpu_clock)), mode.source, mode.note]
            for mode in device.power_modes
        ]
        table("power modes", dict.fromkeys(headings, "left"), lines)
    if found:
        headings = ("JetPack", "L4T", "CUDA", "TensorRT", "Python", "source")
        lines = [
            [f"{r.first} to {r.last}" if r.first != r.last else r.first, r.l4t, r.cuda, r.tensorrt, r.python, r.source]
            for r in found
        ]
        table("JetPack", dict.fromkeys(headings, "left"), lines)


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
            _console().print(drawn(dict(record)))
    for line in remark_lines(dict(record)):
        _console().print(line)
    stages = record.get("stages", [])
    for stage in stages:
        cost = "cached" if stage["cached"] else f"{stage['seconds']:.1f} s"
        print(f"{stage['name']:<10} {cost}")
    if stages and all(stage["cached"] for stage in stages):
        print("every stage was there already: nothing was done")
    page = run / "report.html"
    print(f"report: {page}" if page.is_file() else f"run: {run}")


def lint(record: Mapping[str, Any], as_json: bool) -> None:
    """Counts, what is wrong, what stays float, and the word of NVIDIA's builder."""
    if as_json:
        emit(record)
        return
    print(f"{record['model']} for {record['target']} ({record['runtime']}): {record['line']}")
    for problem in record["problems"]:
        print(f"  wrong  {problem}")
    for island in record["float_islands"]:
        print(f"  float  {island}")
    builder = record.get("builder", {})
    if "skipped" in builder:
        print(f"not built: {builder['skipped']}")
    elif "refused" in builder:
        print(f"  wrong  {builder['refused']}")
    elif builder:
        sm, size = builder["compute_capability"], builder["plan_bytes"] / 1e6
        print(f"TensorRT-RTX {builder['version']} built it for sm_{sm} in {builder['seconds']:.1f} s: {size:.2f} MB")
    print("nothing is wrong with it" if record["clean"] else "it will not run as it should")


def engine(record: Mapping[str, Any], as_json: bool) -> None:
    """Where an engine is, who built it, and what the builder warned of."""
    if as_json:
        emit(record)
        return
    runtime, sm = record["backend"], record["device"]["compute_capability"]
    print(record["path"])
    print(f"for sm_{sm} by {record['builder']}, loads in {runtime} {record['versions'][runtime]}")
    print(f"{record['bytes'] / 1e6:.2f} MB in {record['seconds']:.1f} s; log: {record['build_log']}")
    for warning in record["warnings"]:
        print(f"  warned  {warning}")


def commands(records: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """What to run on the target, for each TensorRT that it may have."""
    if as_json:
        emit(list(records))
        return
    for record in records:
        print(f"# TensorRT {record['tensorrt']}")
        if "refused" in record:
            print(f"# {record['refused']}")
        for key in ("build", "time"):
            if key in record:
                print(shlex.join(record[key]))


def selection(record: Mapping[str, Any], as_json: bool) -> None:
    """The samples to label, and where they stand."""
    if as_json:
        emit(record)
        return
    print(*record["selected"])
    total = record["labelled"] + len(record["selected"])
    print(f"wrote {record['path']}: {total} samples; label the last {len(record['selected'])}")
    print(f"next: --set distill.labels={record['path']}")


def artifact(item: Any, as_json: bool) -> None:
    """Where an artifact is, and what it says of itself."""
    record = item.to_json()
    if as_json:
        emit(record)
    else:
        print(record["path"])


def checks(items: Sequence[Any], as_json: bool) -> None:
    plain = records(items)
    if as_json:
        emit(plain)
        return
    lines = [
        ["ok" if check["ok"] else "MISSING", check["name"], check["detail"], "" if check["ok"] else check["fix"]]
        for check in plain
    ]
    table("", {"": "left", "check": "left", "found": "left", "what to do": "left"}, lines)
