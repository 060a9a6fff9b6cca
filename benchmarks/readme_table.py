"""Draw the README's results from the last line of each file in benchmarks/results/.

python benchmarks/readme_table.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"


def last(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.jsonl"
    return json.loads(file.read_text().splitlines()[-1]) if file.exists() else None


def cifar10(line: dict[str, Any]) -> str:
    f, runtime, isa = line["figures"], line["versions"]["onnxruntime"], ", ".join(line["isa"])
    labels = {
        "teacher": "ResNet-56 teacher, FP32 ONNX",
        "onnx-fp32": f"student ({f['params']:,} parameters), FP32 ONNX",
        "onnx-int8": "student, INT8 ONNX",
    }
    rows = [["file", "top-1", "latency", "speed"], ["---", "---:", "---:", "---:"]]
    for key, label in labels.items():
        p50 = f["p50_ms"][key]
        rows.append([label, f"{100 * f['top1'][key]:.2f} %", f"{p50:.3f} ms", f"{f['p50_ms']['teacher'] / p50:.2f}x"])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f"CIFAR-10, all 10,000 test images, by ONNX Runtime {runtime} on one thread of an {line['cpu']} ({isa}),\n"
        f"latency the p50 at batch 1. From nothing {f['seconds'] / 60:.0f} minutes on two cores, "
        f"again {f['again_seconds']:.0f} s.\nMade by `{line['command']}` ({line['date']}).\n\n{table}\n"
    )


def resume(line: dict[str, Any]) -> str:
    stages = line["figures"]["stages"]
    same, names = sum(row["same_bytes"] for row in stages), ", ".join(row["stage"] for row in stages)
    return (
        f"Killed with `kill -9` inside {names} and run again: {same} of {len(stages)} end with the\n"
        f"bytes of an unbroken run. Made by `{line['command']}` ({line['date']}).\n"
    )


def main() -> None:
    parts = [draw(line) for name, draw in (("cifar10", cifar10), ("resume", resume)) if (line := last(name))]
    block = "<!-- results -->\n" + "\n".join(parts) + "<!-- /results -->"
    README.write_text(re.sub(r"<!-- results -->.*?<!-- /results -->", lambda _: block, README.read_text(), flags=re.S))


if __name__ == "__main__":
    main()
