"""What is found about a file, and what is made of one."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.render import cell, emit, table


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
