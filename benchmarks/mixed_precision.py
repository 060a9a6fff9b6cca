"""Which layers of a MobileNetV2-like student to keep float: the front of accuracy and latency, looked at again.

    python benchmarks/mixed_precision.py DATA --store DIR [--net mobilenetv2] [--budget 0.001]

`quantize.budget` finds the front on the images that choose: each layer's gain and cost, then whole graphs. Every point
of it is exported once more, and its accuracy on all 10,000 test images and its latency are taken anew, side by side
with FP32. A net that is in the record is shown and not measured again.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from _cifar100 import SHAPE
from _graphs import FASTER, export_ptq, latencies
from _record import lines, record
from _students import NETS, OPSET, Students

from edgekd.config import QuantizeConfig
from edgekd.export import export_fp32
from edgekd.models import load_checkpoint

NEAR = 0.001  # of FP32's top-1


def measured(students: Students, options: Namespace) -> dict[str, Any]:
    """The search, and its front on test images beside FP32."""
    net = options.net
    config = QuantizeConfig.model_validate({"budget": options.budget, "qad": {"epochs": 0}})
    _, own = students.quantized(net, config)
    found, network = own["mixed"], load_checkpoint(students.checkpoint(net))
    home = students.home(net) / "front"
    home.mkdir(exist_ok=True)
    graphs = {"fp32": home / "fp32.onnx"}
    export_fp32(network, graphs["fp32"], SHAPE, OPSET)
    batches = students.calibration(config)
    for i, point in enumerate(found["front"]):
        graphs[str(i)] = home / f"{i}.onnx"
        scheme = {"weight_bits": own["weight_bits"], "kept_float": point["kept_float"]}
        export_ptq(network, batches, "ort", graphs[str(i)], scheme)
    p50, warnings = latencies(graphs, SHAPE, options.runs)
    top1 = {name: students.top1(graph) for name, graph in graphs.items()}
    front = [
        {**point, "top1": top1[str(i)], "p50_ms": p50[str(i)], "bytes": graphs[str(i)].stat().st_size}
        for i, point in enumerate(found["front"])
    ]
    float_row = {**own["fp32"], "top1": top1["fp32"], "p50_ms": p50["fp32"]}
    return {
        "net": net,
        **students.protocol,
        "budget": options.budget,
        "layers": found["layers"],
        "fp32": float_row,
        "front": front,
        "chosen": found["chosen"]["kept_float"],
        "within_budget": found["within_budget"],
        "good": sum(p["top1"] >= top1["fp32"] - NEAR and p["p50_ms"] < FASTER * p50["fp32"] for p in front),
        "warnings": warnings,
    }


def show(figures: dict[str, Any]) -> None:
    base, layers = figures["fp32"], len(figures["layers"])
    rows = [{**base, "kept_float": [None] * layers}, *figures["front"]]
    for row in rows:
        what = "FP32" if row is rows[0] else f"{len(row['kept_float'])} of {layers} float"
        values = f"val {row['val_top1']:.2%}  test {row['top1']:.2%}  {row['p50_ms']:.3f} ms"
        chosen = "  chosen" if row["kept_float"] == figures["chosen"] else ""
        print(f"{what:<16} {values}  {base['p50_ms'] / row['p50_ms']:.2f}x{chosen}", flush=True)
    print(f"{figures['good']} of {len(rows) - 1} points are faster than FP32 and within {NEAR:.1%} of it", flush=True)


def main() -> None:
    parser = Students.arguments(__doc__)
    parser.add_argument("--net", choices=NETS, default="mobilenetv2")
    parser.add_argument("--budget", type=float, default=0.001, help="top-1 that may be lost, in [0, 1]")
    parser.add_argument("--runs", type=int, default=400, help="timed runs of each graph of the front")
    options = parser.parse_args()
    students = Students.of(options)
    asked = {"net": options.net, **students.protocol, "budget": options.budget}
    before = [line["figures"] for line in lines("mixed_precision")]
    found = [figures for figures in before if {key: figures[key] for key in asked} == asked]
    if not found:
        found = [measured(students, options)]
        record("mixed_precision", found[0])
    show(found[-1])


if __name__ == "__main__":
    main()
