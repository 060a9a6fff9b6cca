"""A checkpoint's directory: what it builds, its tensors, and which stage wrote it."""

from __future__ import annotations

import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from edgekd.artifacts import Checkpoint
from edgekd.errors import ModelError
from edgekd.stage import digest_file


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Spec, metrics, quantization scheme and tensors, without loading them. Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    checkpoint = Checkpoint.load(path)
    if not checkpoint.weights.is_file():
        raise ModelError(f"{checkpoint.weights} does not exist", "Distill or quantize again.")
    try:
        with safe_open(checkpoint.weights, "np") as file:
            slices = {name: file.get_slice(name) for name in sorted(file.keys())}
            tensors = [
                {"name": name, "dtype": part.get_dtype().lower(), "shape": part.get_shape()}
                for name, part in slices.items()
            ]
    except SafetensorError as error:
        raise ModelError(
            f"{checkpoint.weights} is no safetensors file: {error}", "Distill or quantize again."
        ) from None
    numbers: Counter[str] = Counter()
    for tensor in tensors:
        numbers[tensor["dtype"]] += prod(tensor["shape"])
    stage = path / "stage.json"
    return {
        "kind": "checkpoint",
        "path": str(path),
        "bytes": checkpoint.weights.stat().st_size,
        "sha256": digest_file(checkpoint.weights),
        "spec": checkpoint.spec.to_json(),
        "scheme": checkpoint.scheme,
        "scheme_options": checkpoint.scheme_options,
        "metrics": checkpoint.metrics,
        "numbers": dict(numbers),
        "tensors": tensors,
        "provenance": _provenance(json.loads(stage.read_text())) if stage.is_file() else {},
    }


def _provenance(stage: dict[str, Any]) -> dict[str, Any]:
    return {key: stage[key] for key in ("name", "fingerprint", "seconds")}
