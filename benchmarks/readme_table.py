"""Draw the README's results from benchmarks/results/: of each benchmark the last line, or the last of each table.

python benchmarks/readme_table.py
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from _record import ROOT, lines

README = ROOT / "README.md"
OWN = ("edgekd", "capacity", "expressivity", "width", "sqnr", "random", "vanilla")  # no published proxies

Line = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, figures to the right."""
    aligned = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, aligned, *rows))


def cifar10(found: list[Line]) -> str:
    line = found[-1]
    f, runtime, isa = line["figures"], line["versions"]["onnxruntime"], ", ".join(line["isa"])
    labels = {
        "teacher": "ResNet-56 teacher, FP32 ONNX",
        "onnx-fp32": f"student ({f['params']:,} parameters), FP32 ONNX",
        "onnx-int8": "student, INT8 ONNX",
    }
    rows = []
    for key, label in labels.items():
        p50 = f["p50_ms"][key]
        rows.append([label, f"{100 * f['top1'][key]:.2f} %", f"{p50:.3f} ms", f"{f['p50_ms']['teacher'] / p50:.2f}x"])
    return (
        f"CIFAR-10, all 10,000 test images, by ONNX Runtime {runtime} on one thread of an {line['cpu']} ({isa}),\n"
        f"latency the p50 at batch 1. From nothing {f['seconds'] / 60:.0f} minutes on two cores, "
        f"again {f['again_seconds']:.0f} s.\nMade by `{line['command']}` ({line['date']}).\n\n"
        f"{table(['file', 'top-1', 'latency', 'speed'], rows)}\n"
    )


def resume(found: list[Line]) -> str:
    line = found[-1]
    stages = line["figures"]["stages"]
    same, names = sum(row["same_bytes"] for row in stages), ", ".join(row["stage"] for row in stages)
    return (
        f"Killed with `kill -9` inside {names} and run again: {same} of {len(stages)} end with the\n"
        f"bytes of an unbroken run. Made by `{line['command']}` ({line['date']}).\n"
    )


def search_rank(found: list[Line]) -> str:
    rows = []
    for line in {line["figures"]["table"]: line for line in found}.values():
        scorers = line["figures"]["rows"]
        published = {k: r for k, r in scorers.items() if not k.startswith(OWN) and "," not in k and k != "params"}
        best = max(published, key=lambda key: published[key]["tau"])
        cells = [f"{scorers[key]['tau']:.3f}" if key in scorers else "-" for key in ("params", "diswot")]
        own, (low, high) = scorers["edgekd"], scorers["edgekd"]["tau_ci95"]
        cells.append(f"{best} {published[best]['tau']:.3f}")
        cells += [f"{own['tau']:.3f} ({low:.2f} to {high:.2f})", f"{own['rho']:.3f}"]
        rows.append([f"{line['figures']['table']}, {line['figures']['networks']} networks", *cells])
    head = ["table", "params", "DisWOT", "best of the other published", "edgekd (95 %)", "edgekd, rho"]
    return (
        "Kendall's tau of training-free scores with published accuracies of trained networks, which are built and\n"
        f"scored on real images. Made by `python benchmarks/search_rank.py` ({found[-1]['date']}).\n\n"
        f"{table(head, rows)}\n"
    )


def distill_accuracy(found: list[Line]) -> str:
    runs: dict[str, list[float]] = {}
    for line in found:
        runs.setdefault(line["figures"]["method"], []).append(100 * line["figures"]["top1"])
    rows = []
    for name, values in sorted(runs.items(), key=lambda item: -statistics.fmean(item[1])):
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        rows.append([name, f"{statistics.fmean(values):.2f}{spread}", str(len(values))])
    return (
        "ResNet-56 (72.63 %) to ResNet-20 on the first 20,000 training images of CIFAR-100, 20 epochs, top-1 on all\n"
        f"10,000 test images. Made by `python benchmarks/distill_accuracy.py` ({found[-1]['date']}).\n\n"
        f"{table(['method', 'top-1, %', 'seeds'], rows)}\n"
    )


def distill_speed(found: list[Line]) -> str:
    line = found[-1]
    figures = line["figures"]
    rows = [[name, f"{speed:,.0f}"] for name, speed in figures["images_per_s"].items()]
    return (
        f"Training ResNet-20 with ResNet-56 as its teacher, an epoch of kd from stored targets takes "
        f"{figures['replay_over_plain']:.2f} of a plain one.\nMade by `{line['command']}` ({line['date']}).\n\n"
        f"{table(['loop', 'images/s'], rows)}\n"
    )


def engines(found: list[Line]) -> str:
    line = found[-1]
    f = line["figures"]
    rows = []
    for row in f["engines"]:
        seconds = " and ".join(f"{value:.1f}" for value in row["seconds"])
        same = "yes" if row["differ"] is None else row["differ"]
        rows.append([f"{row['student']}, sm_{row['sm']}", f"{row['bytes'] / 1e6:.2f} MB", seconds, same])
    taken: dict[str, list[str]] = {}
    for row in f["opsets"]:
        taken.setdefault(row["student"], []).append(f"{row['opset']}{' (refused)' if 'refused' in row else ''}")
    opsets = "; ".join(f"{student}: {', '.join(names)}" for student, names in taken.items())
    return (
        f"Engines of {f['student']}, by {f['builder']} without a GPU; none was run.\n"
        f"Opsets its parser and builder take: {opsets}. Made by `{line['command']}` ({line['date']}).\n\n"
        f"{table(['student', 'engine', 'seconds', 'same bytes again'], rows)}\n"
    )


PARTS: dict[str, Callable[[list[Line]], str]] = {
    draw.__name__: draw for draw in (cifar10, search_rank, distill_accuracy, distill_speed, engines, resume)
}


def main() -> None:
    parts = [draw(found) for name, draw in PARTS.items() if (found := lines(name))]
    block = "<!-- results -->\n" + "\n".join(parts) + "<!-- /results -->"
    README.write_text(re.sub(r"<!-- results -->.*?<!-- /results -->", lambda _: block, README.read_text(), flags=re.S))


if __name__ == "__main__":
    main()
