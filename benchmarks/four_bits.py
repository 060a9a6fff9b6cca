"""Weights of 4 bits, simulated: what PTQ loses on ResNet-20, and what QAD by several methods brings back.

    python benchmarks/four_bits.py DATA --store DIR [--methods kl,kd,topkld,taid] [--bits 4] [--qad-epochs 4]

No runtime executes such weights here: they are stored as INT8 in the range of 4 bits, and ONNX Runtime computes what
4 bits would give. So there is an accuracy, on all 10,000 test images, and no latency. `kl` is QAD's own loss, the
others stand in place of its KL to the teacher (`quantize.qad.method`). Every method appends its line; one that is there
is shown and not trained again.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from _cifar100 import SHAPE
from _record import lines, record
from _students import NETS, OPSET, SEED, Students

from edgekd.catalog import METHODS
from edgekd.config import QuantizeConfig
from edgekd.export import export_fp32
from edgekd.models import load_checkpoint

OWN = "kl"  # of QAD, no method named


def trained(students: Students, method: str, options: Namespace) -> dict[str, Any]:
    """FP32, PTQ and QAD by one method."""
    net = options.net
    qad = {"epochs": options.qad_epochs, "tolerance": None, "method": None if method == OWN else method}
    config = QuantizeConfig.model_validate({"weight_bits": options.bits, "qad": qad})
    directory, own = students.quantized(net, config)
    graphs = {"fp32": students.home(net) / "fp32.onnx"}
    export_fp32(load_checkpoint(students.checkpoint(net)), graphs["fp32"], SHAPE, OPSET)
    graphs |= {kind: directory / f"student-{kind}.onnx" for kind in ("ptq", "qad")}
    return {
        "net": net,
        "method": method,
        "weight_bits": options.bits,
        "simulated": own["simulated"],
        **students.protocol,
        "qad": options.qad_epochs,
        "top1": {name: students.top1(graph) for name, graph in graphs.items()},
        "steps": own["qad"]["steps"],
        "seconds": own["qad"]["seconds"],
    }


def main() -> None:
    parser = Students.arguments(__doc__)
    parser.add_argument("--net", choices=NETS, default="resnet20")
    parser.add_argument("--methods", default=f"{OWN},kd,topkld,taid")
    parser.add_argument("--bits", type=int, choices=range(2, 7), default=4)
    parser.add_argument("--qad-epochs", type=float, default=4.0)
    options = parser.parse_args()
    students = Students.of(options)
    asked = {"net": options.net, "weight_bits": options.bits, **students.protocol, "qad": options.qad_epochs}
    before = [line["figures"] for line in lines("four_bits")]
    finished = {row["method"]: row for row in before if {key: row[key] for key in asked} == asked}
    for method in options.methods.split(","):
        if method != OWN and method not in METHODS:
            print(f"{method}: not in the catalogue, left out", flush=True)
            continue
        row = finished.get(method)
        if row is None:
            row = trained(students, method, options)
            record("four_bits", row, SEED)
        values = "  ".join(f"{name} {value:.2%}" for name, value in row["top1"].items())
        print(f"{options.net} {options.bits}-bit weights (simulated), QAD by {method:<8} {values}", flush=True)


if __name__ == "__main__":
    main()
