"""A run directory as the stages leave it, with CIFAR-10-like figures: what the report's tests are drawn from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd.intervals import wilson
from edgekd.quantize import mixed

STAGES = ("search", "distill", "quantize", "export", "profile")
RUNTIME = "onnxruntime-cpu 1.31.1"
LINT = {
    "conv": [21, 21],
    "add": [9, 9],
    "gemm": [1, 1],
    "float_islands": [],
    "problems": [],
    "line": "21/21 convolutions INT8, 9/9 adds, 1/1 linear layers, 0 float islands",
    "ok": True,
}


def _student(
    depths: tuple[int, ...], widths: tuple[int, ...], score: float, params: int, macs: int, ms: float
) -> dict[str, Any]:
    spec = {"source": "edgekd", "name": "cifar-resnet", "kwargs": {"depths": depths, "widths": widths}}
    name = f"depths={','.join(map(str, depths))} widths={','.join(map(str, widths))}"
    return {
        "name": name,
        "measured": False,
        "spec": spec,
        "score": score,
        "params": params,
        "macs": macs,
        "latency_ms": ms,
    }


def _search() -> dict[str, Any]:
    ranking = [
        _student(
            (1 + i % 5, 1 + i % 4, 1 + i % 3),
            (16, 24 + 8 * (i % 3), 56 + 8 * (i % 4)),
            -2.1 - 0.012 * i - 0.1 * math.sin(i) ** 2,
            290_000 - 1500 * i,
            int(4.4e7 - 2.1e5 * i),
            1.35 - 0.008 * i + 0.1 * math.cos(3 * i),
        )
        for i in range(60)
    ]
    for row in ranking[:3]:
        row["measured"] = True
    largest = {**ranking[4], "name": "largest legal", "legal": True, "breaks": None}
    return {
        "space": "cifar-resnet",
        "scorer": "diswot",
        "scored": 200,
        "seconds": 271.4,
        "chosen": ranking[1],
        "ranking": ranking[:20],
        "baselines": [
            {**_student((1, 1, 1), (16, 32, 64), -3.21, 78_042, 12_500_000, 0.48), "name": "resnet8"},
            {**_student((3, 3, 3), (16, 32, 64), -2.74, 272_474, 40_813_184, 1.21), "name": "resnet20"},
            {
                **_student((9, 9, 9), (16, 32, 64), -2.02, 855_770, 125_490_000, 3.4),
                "name": "resnet56",
                "legal": False,
                "breaks": "latency 1.4 ms",
            },
            largest,
        ],
        "latency_limit_ms": 1.55,
        "teacher_latency_ms": 9.3,
        "tau_params": 0.61,
    }


def _ledger() -> list[dict[str, Any]]:
    rows = (
        ("teacher", 9437, 1.0, 3_448_211, RUNTIME, "export/teacher.onnx"),
        ("student-fp32", 9174, 0.9369, 1_130_412, "torch 2.14.1", "distill/model.safetensors"),
        ("student-ptq", 9142, 0.9341, 402_113, RUNTIME, "quantize/student-ptq.onnx"),
        ("student-qad", 9169, 0.9366, 402_113, RUNTIME, "quantize/student-qad.onnx"),
        ("onnx-fp32", 9174, 0.9369, 1_142_870, RUNTIME, "export/student-fp32.onnx"),
        ("onnx-int8", 9169, 0.9366, 402_113, RUNTIME, "export/student-int8.onnx"),
    )
    return [
        {
            "artifact": artifact,
            "metric": "top1",
            "value": correct / 10_000,
            "ci95": list(wilson(correct, 10_000)),
            "correct": correct,
            "n": 10_000,
            "agreement_with_teacher": agreement,
            "size_bytes": size,
            "runtime": runtime,
            "path": path,
        }
        for artifact, correct, agreement, size, runtime, path in rows
    ]


def _fidelity() -> dict[str, Any]:
    found = {"n": 10_000, "agreement_wrong": 0.61, "kl": 0.1873, "spearman": 0.912, "ece": 0.021}
    rows: list[dict[str, Any]] = [{"artifact": "teacher", "reference": None, "ece": 0.034}]
    pairs = (("onnx-fp32", "teacher", 0.9369, 0.956), ("onnx-int8", "onnx-fp32", 0.9871, 0.9934))
    for artifact, reference, agreement, right in pairs:
        shares = {"agreement": agreement, "agreement_right": right}
        rows.append({"artifact": artifact, "reference": reference, **found, **shares})
    rows[-1]["agreement_wrong"] = None
    return {"rows": rows, "cka": 0.871}


def latency_row(artifact: str, batch: int, p50: float, measured: bool = True) -> dict[str, Any]:
    conditions = {
        "process": "own",
        "threads": 1,
        "cores": [1],
        "cpu": "AMD EPYC 7B13 (25.1.0)",
        "isa": ["avx2", "fma"],
        "governor": None,
        "versions": {"python": "3.11.2", "onnxruntime": "1.31.1"},
        "warmup": 50,
        "turns": {"runs": 20, "rewarm": 2, "models": ["teacher", "onnx-fp32", "onnx-int8"]},
        "load_before": [0.42, 0.6, 0.71],
        "load_after": [1.02, 0.8, 0.76],
        "before": {"clock_mhz": 2445.4, "temperature_c": None, "gpu": None},
        "after": {"clock_mhz": 2440.0, "temperature_c": None, "gpu": None},
        "busy_cores": 0.04,
        "provider": "CPUExecutionProvider",
        "cov_percent": 2.31,
        "warnings": ["unsteady: one run in ten took more than 1.6 times the median"] if batch == 32 else [],
    }
    return {
        "artifact": artifact,
        "target": "x86-cpu",
        "backend": "onnxruntime-cpu",
        "precision": "int8" if artifact == "onnx-int8" else "fp32",
        "batch": batch,
        "p50_ms": p50,
        "p90_ms": p50 * 1.06,
        "p95_ms": p50 * 1.1,
        "p99_ms": p50 * 1.21,
        "p50_ci95_ms": [p50 * 0.998, p50 * 1.003],
        "mean_ms": p50 * 1.01,
        "cov_percent": 4.2,
        "quantiles_ms": [p50 * (0.9 + 0.2 * q / 100 + 0.3 * (q / 100) ** 12) for q in range(101)],
        "blocks": [
            {"block": f"layer{i}.{j}", "ms": p50 / (i + j + 4), "share": 1 / (i + j + 4), "layers": 3}
            for i in (1, 2, 3)
            for j in (0, 1)
        ],
        "turn_p50_ms": [p50 * (1 + 0.01 * math.sin(turn + sum(map(ord, artifact)))) for turn in range(10)],
        "throughput_per_s": batch / (p50 * 1.01e-3),
        "n": 200,
        "measured": measured,
        "conditions": conditions if measured else {},
    }


def _latency() -> list[dict[str, Any]]:
    times = {("teacher", 1): 9.41, ("onnx-fp32", 1): 2.86, ("onnx-int8", 1): 1.183}
    times |= {("teacher", 32): 288.1, ("onnx-fp32", 32): 88.2, ("onnx-int8", 32): 33.71}
    return [latency_row(artifact, batch, p50) for (artifact, batch), p50 in times.items()]


def _export() -> list[dict[str, Any]]:
    fp32 = {"max_abs_error": 4.1e-6, "top1_agreement": 1.0, "images": 512}
    int8 = {"top1_agreement": 0.998, "cosine": 0.99991, "images": 512}
    return [
        {"path": "teacher.onnx", "artifact": "teacher", "precision": "fp32", "parity": fp32},
        {"path": "student-fp32.onnx", "artifact": "onnx-fp32", "precision": "fp32", "parity": fp32},
        {"path": "student-int8.onnx", "artifact": "onnx-int8", "precision": "int8", "parity": int8, "lint": LINT},
    ]


def mixed_precision(budget: float = 0.001) -> dict[str, Any]:
    """What the quantize stage adds to its record with `quantize.budget`, of 21 invented layers."""
    layers = ["conv1", *(f"layer{i}.{j}.conv{k}" for i in (1, 2, 3) for j in (0, 1, 2) for k in (1, 2)), "down", "fc"]
    gains = {layer: 0.006 * math.exp(-(i % 7)) - 0.0001 * (i % 3) for i, layer in enumerate(layers)}

    def measure(assignments: Sequence[tuple[str, ...]]) -> list[mixed.Point]:
        points = []
        for kept in assignments:
            gained = sum(gains[layer] for layer in kept)
            latency = 1.18 + sum(0.05 + 0.04 * math.sin(layers.index(layer)) for layer in kept)
            top1 = 0.9148 + 0.11 * gained - 0.0004 * (len(kept) == 7)
            points.append(mixed.Point(kept, round(top1, 4), 0.0533 - gained, latency))
        return points

    found = mixed.search(layers, measure, 0.9180, budget).to_json()
    return {"mixed": found, "kept_float": found["chosen"]["kept_float"]}


def write_run(
    run: Path, until: str = "profile", data: str = "cifar10", budget: float | None = None, **quantized: Any
) -> Path:
    """Fill `run` as a compress that stopped after stage `until` does; `until=""` ran none.

    With `budget` layers are kept float; `quantized` are more keys of quantize.json.
    """
    done = STAGES[: STAGES.index(until) + 1] if until else ()
    seconds = dict(zip(STAGES, (271.4, 1604.2, 411.9, 96.3, 88.0), strict=True))
    files: dict[str, Any] = {
        "run.json": {
            "config": {"data": data, "target": "x86-cpu", "seed": 0, "distill": {"epochs": 30, "lr": 0.1}}
            | {"quantize": {"budget": budget}},
            "data": {"name": data, "classes": 10, "train": 47_500, "val": 2_500, "test": 10_000},
            "teacher": {"name": "resnet56", "params": 855_770, "macs": 126_556_800},
            "versions": {"edgekd": "0.1.0", "python": "3.11.2", "torch": "2.14.1", "onnxruntime": "1.31.1"},
            "seed": 0,
            "host": {"cpu": "AMD EPYC 7B13 (25.1.0)", "cores": 2, "machine": "Linux x86_64"},
            "stages": [
                {"name": name, "seconds": seconds[name], "cached": name == "search", "fingerprint": name[0] * 64}
                for name in done
            ],
        },
        "search/search.json": _search(),
        "distill/history.json": [
            {
                "epoch": epoch,
                "loss": 1.6 * math.exp(-epoch / 9) + 0.35,
                "val_top1": 0.925 - 0.5 * math.exp(-epoch / 5) - 0.01 * (epoch % 3) / epoch,
                "lr": 0.1,
                "seconds": 53.4,
            }
            for epoch in range(1, 31)
        ],
        "quantize/quantize.json": {
            "scheme": "ort",
            "weight_bits": 7,
            "calibration": 512,
            "fp32": {"val_top1": 0.9180, "val_kl": 0.0412},
            "ptq": {"val_top1": 0.9148, "val_kl": 0.0533, "lint": LINT, "seconds": 21.0},
            "qad": {"val_top1": 0.9172, "val_kl": 0.0431, "lint": LINT, "seconds": 390.9, "steps": 371, "loss": 0.039},
            "chosen": "qad",
            **({} if budget is None else mixed_precision(budget)),
            **quantized,
        },
        "export/export.json": _export(),
        "export/ledger.json": _ledger(),
        "export/fidelity.json": _fidelity(),
        "profile/latency.json": _latency(),
    }
    files |= {f"{name}/stage.json": {"name": name, "fingerprint": name[0] * 64} for name in done}
    for name, record in files.items():
        stage = name.partition("/")[0]
        if stage == "run.json" or stage in done:
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text(json.dumps(record))
    return run
