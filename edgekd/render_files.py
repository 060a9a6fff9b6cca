"""What a bundle, an artifact's description and a comparison look like on standard output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.render import cell, emit, table

if TYPE_CHECKING:
    from edgekd.profile.estimate import LatencyEstimate

SHOWN = 5  # kernels of an estimate


def bundle(manifest: Mapping[str, Any], out: Path, as_json: bool) -> None:
    """What is in a new bundle, and what to do with it."""
    if as_json:
        emit({"path": str(out), **manifest})
        return
    print(f"{out}: {_names(manifest)} for {manifest['target']['name']}, {len(manifest['files'])} files")
    print(f"next: edgekd verify {out}")


def _names(record: Mapping[str, Any]) -> str:
    return ", ".join(model["name"] for model in record["models"])


def verified(record: Mapping[str, Any], as_json: bool) -> None:
    """What a bundle that passes was held against, in the words of its verify.py."""
    if as_json:
        emit(record)
    else:
        print("\n".join(record["lines"]))


def description(record: Mapping[str, Any], as_json: bool) -> None:
    """What `edgekd inspect` found in a file."""
    if as_json:
        emit(record)
        return
    print(f"{record['path']}: {record['kind']}, {record['bytes']:,} bytes\n")
    {"onnx": _onnx, "engine": _facts, "checkpoint": _checkpoint, "bundle": _bundle}[record["kind"]](record)


def _facts(record: Mapping[str, Any], *left_out: str) -> None:
    """A line a plain value; what lies in a dictionary is indented."""
    for key, value in record.items():
        if key in ("kind", "path", "bytes", *left_out) or value in ([], {}):
            continue
        if isinstance(value, dict):
            print(key.replace("_", " "))
            for name, item in value.items():
                print(f"  {name:<18} {cell(item)}")
        else:
            print(f"{key.replace('_', ' '):<20} {cell(value)}")


def _onnx(record: Mapping[str, Any]) -> None:
    for side in ("inputs", "outputs"):
        for tensor in record[side]:
            shape = " x ".join("N" if size is None else str(size) for size in tensor["shape"])
            print(f"{side[:-1]:<20} {tensor['name']} {tensor['dtype']} {shape}")
    _facts(record, "inputs", "outputs", "layers")
    weighted = [layer for layer in record["layers"] if "weights" in layer]
    columns = {"layer": "left", "operator": "left", "precision": "left", "weights": "left"}
    lines = [[la["name"], la["op"], cell(la["precision"]), cell(la["weights"])] for la in weighted]
    table("\nlayers with weights", columns, lines)
    others = Counter((la["op"], cell(la["precision"])) for la in record["layers"] if "weights" not in la)
    lines = [[op, precision, str(count)] for (op, precision), count in others.most_common()]
    table("other operators", {"operator": "left", "precision": "left", "count": "right"}, lines)


def _checkpoint(record: Mapping[str, Any]) -> None:
    _facts(record, "tensors")
    lines = [[tensor["name"], tensor["dtype"], cell(tensor["shape"])] for tensor in record["tensors"]]
    table("\ntensors", {"tensor": "left", "type": "left", "shape": "left"}, lines)


def _bundle(record: Mapping[str, Any]) -> None:
    _facts(record, "models")
    keys = ("name", "precision", "scheme", "opset", "path")
    lines = [[cell(model[key]) for key in keys] for model in record["models"]]
    table("\nmodels", dict.fromkeys(keys, "left"), lines)


def difference(record: Mapping[str, Any], as_json: bool) -> None:
    """Two artifacts side by side."""
    if as_json:
        emit(record)
        return
    for side in ("a", "b"):
        print(f"{side.upper()}  {record[side]['path']} ({record[side]['runtime']})")
    print(f"on {record['inputs']}: B against A\n")
    for key, value in record["outputs"].items():
        print(f"{key.replace('_', ' '):<15} {value:.6g}")
    headings = ("artifact", "batch", "p50 ms", "p90 ms", "p99 ms", "images/s")
    keys = ("p50_ms", "p90_ms", "p99_ms", "throughput_per_s")
    lines = [[r["artifact"], str(r["batch"]), *(f"{r[key]:.4g}" for key in keys)] for r in record["latency"]]
    columns = {heading: "left" if heading == "artifact" else "right" for heading in headings}
    table(f"\nlatency on {record['target']}", columns, lines)
    for row in record["latency"]:
        for warning in row["conditions"]["warnings"]:
            print(f"{row['artifact']}, batch {row['batch']}: {warning}")


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
        slowest = sorted(estimate.kernels, key=lambda kernel: -kernel["ms"])[:SHOWN]
        lines = [[k["name"], " ".join(k["operators"]), f"{k['ms']:.3g}", k["bound"]] for k in slowest]
        table("", {"slowest kernels": "left", "operators": "left", "ms": "right", "bound by": "left"}, lines)
