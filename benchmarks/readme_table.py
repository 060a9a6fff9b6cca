"""Draw the README's results from benchmarks/results/: of each benchmark the last line, or the last of each table.

python benchmarks/readme_table.py
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
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
    tables: dict[str, dict[str, Any]] = {}
    for line in found:  # a later run may be of a few scorers alone
        tables.setdefault(line["figures"]["table"], {}).update(line["figures"]["rows"])
    networks = {line["figures"]["table"]: line["figures"]["networks"] for line in found}
    for name, scorers in tables.items():
        published = {k: r for k, r in scorers.items() if not k.startswith(OWN) and "," not in k and "params" not in k}
        best = max(published, key=lambda key: published[key]["tau"])
        cells = [f"{scorers[key]['tau']:.3f}" if key in scorers else "-" for key in ("params", "diswot")]
        own, (low, high) = scorers["edgekd"], scorers["edgekd"]["tau_ci95"]
        cells.append(f"{best} {published[best]['tau']:.3f}")
        cells += [f"{own['tau']:.3f} ({low:.2f} to {high:.2f})", f"{own['rho']:.3f}"]
        rows.append([f"{name}, {networks[name]} networks", *cells])
    head = ["table", "params", "DisWOT", "best of the other published", "edgekd (95 %)", "edgekd, rho"]
    return (
        "Kendall's tau of training-free scores with published accuracies of trained networks, which are built and\n"
        f"scored on real images. Made by `python benchmarks/search_rank.py` ({found[-1]['date']}).\n\n"
        f"{table(head, rows)}\n"
    )


def search_students(found: list[Line]) -> str:
    runs = [line["figures"] for line in found if "top1" in line["figures"]]
    summary = next((line["figures"]["tau"] for line in reversed(found) if "tau" in line["figures"]), None)
    rows = []
    for run in sorted(runs, key=lambda run: -float(run["top1"])):
        size = [f"{run['params'] / 1e3:,.0f}", f"{run['macs'] / 1e6:.1f}", f"{run['score']:.2f}"]
        rows.append([run["student"], run["why"], f"{run['latency_ms']:.3f}", *size, f"{100 * run['top1']:.2f}"])
    taus = (
        "\nKendall's tau with top-1 (95 %): "
        + ", ".join(f"{k} {t['tau']:.3f} ({t['ci95'][0]:.2f} to {t['ci95'][1]:.2f})" for k, t in summary.items())
        if summary
        else ""
    )
    return (
        "Students of `cifar-resnet` at one measured latency (INT8, batch 1, one thread), each distilled by kd from\n"
        "ResNet-56 on the first 20,000 training images of CIFAR-100 for 20 epochs, top-1 on all 10,000 test images.\n"
        f"Made by `python benchmarks/search_students.py` ({found[-1]['date']}).{taus}\n\n"
        f"{table(['student', 'why', 'ms', 'params, k', 'MACs, M', 'score', 'top-1, %'], rows)}\n"
    )


def mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


SHORT = ("cifar100", "aspects", "combinations")  # settings of seed_methods.py that are distill_accuracy.py's


def best_first(found: Iterable[Line], *keys: str) -> list[tuple[list[str], list[Line]]]:
    """Runs that have the figures `keys` in common, of all seeds, by their mean top-1; the first keys in their order."""
    runs: dict[tuple[str, ...], list[Line]] = {}
    for line in found:
        runs.setdefault(tuple(line["figures"][key] for key in keys), []).append(line["figures"])
    order = list(dict.fromkeys(names[:-1] for names in runs))
    of_mean = {names: statistics.fmean(run["top1"] for run in several) for names, several in runs.items()}
    return [(list(names), runs[names]) for names in sorted(runs, key=lambda n: (order.index(n[:-1]), -of_mean[n]))]


def accuracy_cells(several: list[Line]) -> list[str]:
    """Top-1, seeds and minutes of one method."""
    seconds = [run["seconds"] for run in several if "seconds" in run]  # not of a run that was paused
    minutes = f"{statistics.fmean(seconds) / 60:.0f}" if seconds else ""
    return [mean_and_spread([100 * run["top1"] for run in several]), str(len(several)), minutes]


def distill_accuracy(found: list[Line]) -> str:
    others = [line for line in lines("seed_methods") if line["figures"]["group"] in SHORT]
    rows = [[*names, *accuracy_cells(several)] for names, several in best_first([*found, *others], "method")]
    return (
        "ResNet-56 (72.63 %) to ResNet-20 on the first 20,000 training images of CIFAR-100, 20 epochs, top-1 on all\n"
        "10,000 test images, and minutes of training on one core. Made by `python benchmarks/distill_accuracy.py` and\n"
        f"`python benchmarks/seed_methods.py` ({max(line['date'] for line in [*found, *others])}).\n\n"
        f"{table(['method', 'top-1, %', 'seeds', 'minutes'], rows)}\n"
    )


def seed_methods(found: list[Line]) -> str:
    rows = []
    settings = [line for line in found if line["figures"]["group"] not in SHORT]
    for names, several in best_first(settings, "group", "method"):
        exposed = [run["exposure"] for run in several if "exposure" in run]
        of_round = zip(*(run.get("rounds", ()) for run in several), strict=True)
        rounds = " / ".join(f"{100 * sum(values) / len(values):.1f}" for values in of_round)
        note = f"exposure {mean_and_spread(exposed)} bits" if exposed else rounds
        rows.append([*names, *accuracy_cells(several), note])
    epochs = " or ".join(sorted({f"{line['figures']['epochs']}" for line in settings}))
    return (
        f"Methods that are for another setting, {epochs} epochs of 20,000 images, beside plain training and kd of the\n"
        "same budget: top-1 on all 10,000 test images. The settings are described in `benchmarks/seed_methods.py`,\n"
        f"which made them ({found[-1]['date']}).\n\n"
        f"{table(['setting', 'method', 'top-1, %', 'seeds', 'minutes', ''], rows)}\n"
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


def profile_check(found: list[Line]) -> str:
    checks = {line["figures"]["check"]: line["figures"] for line in found}
    said = []
    if f := checks.get("agreement"):
        ratios = ", ".join(f"{row['ratio']:.4f} ({row['model']})" for row in f["models"])
        said.append(f"p50 over that of a loop written apart, in turns: {ratios}.")
    if f := checks.get("repeat"):
        said.append(f"{f['quiet_runs']} runs one after another: the medians' coefficient of variation is ")
        said[-1] += f"{f['cov_percent']:.2f} %; a busy machine was reported in {f['busy_runs_warned']} of "
        said[-1] += f"{f['busy_runs']} runs beside a hog and {f['quiet_runs_warned']} of {f['quiet_runs']} alone."
    if f := checks.get("overhead"):
        said.append(f"A graph of {f['nodes']:,} nodes: {100 * f['outside_share']:.1f} % of measuring is not the ")
        said[-1] += f"runtime's, {100 * f['outside_share_of_command']:.1f} % of the whole command."
    made = f"Made by `python benchmarks/profile_check.py CHECK` ({found[-1]['date']})."
    return "\n".join(["`edgekd profile` checked:", *said, made]) + "\n"


def latency_estimate(found: list[Line]) -> str:
    line = found[-1]
    f = line["figures"]
    rows = []
    for name, row in f["devices"].items():
        cells = [f"{row['rho']:.3f}", f"{100 * row['mape']:.0f} %", f"{100 * row['covered']:.0f} %"]
        for baseline in row["baselines"].values():
            cells.append(f"{baseline['rho']:.3f}, {100 * baseline['mape']:.0f} %")
        rows.append([name, str(row["n"]), *cells])
    reached = sum(row["rho"] >= 0.9 for row in f["devices"].values())
    covered, of_all = (f"{100 * f[key]:.0f} %" for key in ("covered", "covered_rows"))
    return (
        f"Latency estimates against {f['rows']:,} published TensorRT latencies at batch 1, each device left out of\n"
        "all that its estimates and bands were fitted to: rho is at least .9 on "
        f"{reached} of {len(rows)} devices, and the 80 %\n"
        f"bands hold {covered} (mean of the devices; {of_all} of the latencies). "
        f"The band that ships is a factor of {f['factor']:.2f} either way.\n"
        f"Beside it FLOPs over the peak, and the roofline alone, scaled to the other devices: rho, MAPE.\n"
        f"Made by `{line['command']}` ({line['date']}).\n\n"
        f"{table(['device left out', 'n', 'rho', 'MAPE', 'in the band', 'FLOPs', 'roofline'], rows)}\n"
    )


def quantize(found: list[Line]) -> str:
    names = {
        "fp32": "FP32",
        "onnxruntime": "ONNX Runtime",
        "modelopt": "ModelOpt",
        "ptq": "edgekd PTQ",
        "qad": "edgekd QAD",
    }
    rows = []
    for line in {line["figures"]["net"]: line for line in found}.values():
        of = line["figures"]["rows"]
        cells = []
        for name in names:
            row = of.get(name, {})
            top1 = f"{100 * row['top1']:.2f} %, " if "top1" in row else ""
            speed = f" ({of['fp32']['p50_ms'] / row['p50_ms']:.2f}x)" if row and name != "fp32" else ""
            cells.append(f"{top1}{row['p50_ms']:.3f} ms{speed}, {row['bytes'] / 1e3:,.0f} kB" if row else "-")
        rows.append([line["figures"]["net"], *cells])
    line = found[-1]
    return (
        "INT8 by edgekd and by others on CIFAR-100: top-1 on all 10,000 test images by ONNX Runtime "
        f"{line['versions']['onnxruntime']}, p50 at batch 1\non one thread of an {line['cpu']} "
        f"({', '.join(line['isa'])}), size of the file. Nets without an accuracy have random weights.\n"
        f"Made by `python benchmarks/quantize.py` ({line['date']}).\n\n{table(['net', *names.values()], rows)}\n"
    )


def tensorrt_placement(found: list[Line]) -> str:
    rows = []
    for line in {line["figures"]["net"]: line for line in found}.values():
        f = line["figures"]
        placed = f["graphs"]["int8+fp16"]
        counts = [f"{n}/{of}" if of else "-" for n, of in (placed[kind] for kind in ("conv", "gemm", "add"))]
        islands = ", ".join(dict.fromkeys(placed["float_islands"])) or "nothing"
        plans = " / ".join(f"{size / 1e6:.1f}" for size in f["plan_bytes"].values())
        slopes = [f"{f['bytes_a_parameter'][scheme]:.2f}" for scheme in ("int8+fp16", "fp16")]
        clean = "yes" if all(graph["clean"] for graph in f["graphs"].values()) else "no"
        rows.append([f["net"], clean, *counts, plans, *slopes, islands])
    f = found[-1]["figures"]
    capabilities = ", ".join(f"sm_{sm}" for sm in f["plan_bytes"])
    head = ["net", "lint clean", "conv", "linear", "add", "plans, MB", "bytes a parameter", "FP16's", "stays FP16"]
    return (
        "The scheme `int8+fp16` on nets of random weights: what is INT8 of all there is, the plans that TensorRT-RTX\n"
        f"builds for {capabilities}, the bytes that a parameter adds to a plan, and what stays float.\n"
        "None of it ran: there was no GPU. "
        f"Made by `python benchmarks/tensorrt_placement.py` ({found[-1]['date']}).\n\n{table(head, rows)}\n"
    )


def mixed_precision(found: list[Line]) -> str:
    line = found[-1]
    f = line["figures"]
    layers = len(f["layers"])
    rows = [["FP32", *_point(f["fp32"], f["fp32"])]]
    for point in f["front"]:
        mark = ", chosen" if point["kept_float"] == f["chosen"] else ""
        rows.append([f"{len(point['kept_float'])} of {layers} layers float{mark}", *_point(point, f["fp32"])])
    return (
        f"Mixed precision on {f['net']} (CIFAR-100): the front as found on {f['val']:,} validation images, measured\n"
        f"again on all 10,000 test images. Made by `{line['command']}` ({line['date']}).\n\n"
        f"{table(['graph', 'validation', 'test', 'latency', 'speed'], rows)}\n"
    )


def _point(point: Line, base: Line) -> list[str]:
    tops = [f"{100 * point[key]:.2f} %" for key in ("val_top1", "top1")]
    return [*tops, f"{point['p50_ms']:.3f} ms", f"{base['p50_ms'] / point['p50_ms']:.2f}x"]


def four_bits(found: list[Line]) -> str:
    runs = {line["figures"]["method"]: line["figures"] for line in found}
    f = found[-1]["figures"]
    rows = [
        [name, *(f"{100 * run['top1'][kind]:.2f} %" for kind in ("fp32", "ptq", "qad"))] for name, run in runs.items()
    ]
    return (
        f"Weights of {f['weight_bits']} bits on {f['net']} (CIFAR-100), simulated: no runtime here executes them, so\n"
        f"there is no latency. Top-1 on all 10,000 test images.\n"
        f"Made by `python benchmarks/four_bits.py` ({found[-1]['date']}).\n\n"
        f"{table(['QAD by', 'FP32', 'PTQ', 'QAD'], rows)}\n"
    )


def mlperf_tiny(found: list[Line]) -> str:
    line = found[-1]
    f = line["figures"]
    labels = {
        "litert": "MLPerf Tiny's ResNet-8, INT8, LiteRT",
        "edgekd": f"student ({f['student']}), INT8, ONNX Runtime",
    }
    rows = []
    for key, label in labels.items():
        row = f["rows"][key]
        figures = [
            f"{100 * row['top1']:.2f} %",
            f"{row['p50_ms']:.3f} ms",
            f"{row['bytes']:,}",
            f"{row['macs'] / 1e6:.1f} M",
        ]
        rows.append([label, *figures])
    same = f["resnet8"]
    label = "a ResNet-8 of random weights, INT8 by edgekd, ONNX Runtime"
    rows.append([label, "-", f"{same['p50_ms']:.3f} ms", f"{same['bytes']:,}", f"{same['macs'] / 1e6:.1f} M"])
    return (
        "CIFAR-10, all 10,000 test images, latency the p50 at batch 1 on one thread, both in one process.\n"
        f"Made by `{line['command']}` ({line['date']}).\n\n"
        f"{table(['file', 'top-1', 'latency', 'bytes', 'MACs'], rows)}\n"
    )


PARTS: dict[str, Callable[[list[Line]], str]] = {
    draw.__name__: draw
    for draw in (
        cifar10,
        mlperf_tiny,
        quantize,
        mixed_precision,
        four_bits,
        tensorrt_placement,
        search_rank,
        search_students,
        distill_accuracy,
        seed_methods,
        distill_speed,
        engines,
        profile_check,
        latency_estimate,
        resume,
    )
}


def main() -> None:
    parts = [draw(found) for name, draw in PARTS.items() if (found := lines(name))]
    block = "<!-- results -->\n" + "\n".join(parts) + "<!-- /results -->"
    README.write_text(re.sub(r"<!-- results -->.*?<!-- /results -->", lambda _: block, README.read_text(), flags=re.S))


if __name__ == "__main__":
    main()
