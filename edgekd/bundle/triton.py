"""config.pbtxt of a Triton model repository: `models/` of a bundle is one as it lies there."""

from __future__ import annotations

import json
from typing import Any

TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
}
FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}


def model_config(model: dict[str, Any], runtime: str, max_batch: int, gpu: bool) -> str:
    """The text of a model's config.pbtxt, for an entry of the manifest's `models`.

    A graph with a dynamic batch gets Triton's dynamic batching up to `max_batch` images; one of a fixed batch states it
    in its dims.
    """
    dynamic = all(tensor["shape"][0] is None for tensor in (*model["inputs"], *model["outputs"]))
    lines = [
        f"name: {json.dumps(model['name'])}",
        f"backend: {json.dumps(runtime)}",
        f"default_model_filename: {json.dumps(FILES[runtime])}",
        f"max_batch_size: {max_batch if dynamic else 0}",
        *(line for tensor in model["inputs"] for line in _tensor("input", tensor, dynamic)),
        *(line for tensor in model["outputs"] for line in _tensor("output", tensor, dynamic)),
        f"instance_group [{{ count: 1, kind: {'KIND_GPU' if gpu else 'KIND_CPU'} }}]",
    ]
    if dynamic:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def _tensor(side: str, tensor: dict[str, Any], dynamic: bool) -> list[str]:
    dims = [-1 if size is None else size for size in tensor["shape"][1 if dynamic else 0 :]]
    named = [f"  label_filename: {json.dumps('labels.txt')}"] if side == "output" else []
    return [
        f"{side} [{{",
        f"  name: {json.dumps(tensor['name'])}",
        f"  data_type: {TYPES[tensor['dtype']]}",
        f"  dims: {dims}",
        *named,
        "}]",
    ]
