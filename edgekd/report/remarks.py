"""What the report says of quantization in words: the same sentences on the page and in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekd.catalog import SCHEMES
from edgekd.report import units

REFERENCE = "onnxruntime-reference"
COUNTED = {
    "onnxruntime": "Counted in the graph that ONNX Runtime executes on this machine.",
    "tensorrt": "Counted in the exported graph: what TensorRT can fuse. No engine was looked into.",
}


@dataclass(frozen=True)
class Remark:
    """A sentence and its label; `bad` where figures must not be read without it."""

    label: str
    text: str
    bad: bool = False


def speed(verdict: dict[str, Any]) -> str | None:
    """Where the quantized student is not faster, beyond noise, than itself in another precision; else None.

    Of several at one batch size the fastest is named.
    """
    rows = sorted(verdict["students"], key=lambda row: (row["batch"], row["ratio"]))
    slow = {row["batch"]: row for row in rows if not row["faster"]}  # the last one has the largest ratio
    if not slow:
        return None
    always = "" if slow.keys() == {row["batch"] for row in rows} else "always "
    name = units.precision(rows[0]["precision"])
    return f"{name} does not {always}pay on this device: {', '.join(map(_faster, slow.values()))}."


def _faster(row: dict[str, Any]) -> str:
    """`FP32 is 4 % faster at batch 1`, and how sure that is where it is not."""
    other, at, ratio = units.precision(row["against_precision"]), f"at batch {row['batch']}", row["ratio"]
    faster = f"{units.times(ratio)} as fast" if ratio >= 1.95 else f"{100 * (ratio - 1):.2g} % faster"
    if row["ci95"] is None:
        return f"{other} is {faster} {at} (no turns to compare: how sure that is cannot be said)"
    if row["ci95"][0] > 1:
        return f"{other} is {faster} {at}"
    low, high = (f"{100 * (bound - 1):+.2g}".replace("-", "−") for bound in row["ci95"])
    return f"it is not faster than {other} beyond noise {at} (time {low} to {high} %, 95 % interval)"


def quantization(report: dict[str, Any]) -> list[Remark]:
    """What the figures of the quantize stage are to be read with, the bad first."""
    record = report["quantize"]
    if record is None:
        return []
    found = []
    if "simulated" in record:
        found.append(Remark("simulated", f"{record['simulated']}.", bad=True))
    if record.get("measured_with") == REFERENCE:
        text = "accuracy by ONNX Runtime unoptimised on this machine: the target's runtime is not here."
        found.append(Remark("simulated", text, bad=True))
    if (mixed := record.get("mixed")) and not mixed["within_budget"]:
        allowed = report["config"]["quantize"]["budget"]
        lost = record["fp32"]["val_top1"] - mixed["chosen"]["val_top1"]
        text = (
            f"every choice of float layers loses more validation top-1 than {100 * allowed:.2f} points;"
            f" the most accurate one is taken, which loses {100 * lost:.2f} after calibration."
        )
        found.append(Remark("over budget", text, bad=True))
    kept = record.get("kept_float") or []
    if mixed and len(kept) == len(mixed["layers"]):
        text = f"every one of {len(kept)} layers is kept float: nothing is quantized."
        found.append(Remark("all float", text, bad=True))
    if "qad_skipped" in record:
        found.append(Remark("QAD skipped", f"{record['qad_skipped']}."))
    if kept:
        found.append(Remark("kept float", f"{', '.join(kept)}."))
    return found


def lint(record: dict[str, Any]) -> Remark:
    """Whether something is wrong with a graph, else how much of it is in integers: what is float is no fault."""
    problems = len(record["problems"])
    if problems:
        return Remark(f"{problems} problem{'s' if problems > 1 else ''}", "it will not run as it should", bad=True)
    return Remark("all in integers" if record["ok"] else "part float", "nothing is wrong with it")


def counted(quantize: dict[str, Any] | None) -> str:
    """What the counts of a lint are of."""
    return COUNTED[SCHEMES[quantize["scheme"]].runtime] if quantize else ""
