"""What the lists and their entries print: methods, scorers, spaces, targets, the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekd.render import cell, emit, records, table

if TYPE_CHECKING:
    from edgekd.profile.device import Device, Figure


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
