"""What a graph takes and gives, as its caller wants it: pixels in place of normalised floats, classes beside logits.

The nodes are those of opset 13, so they hold in any opset that is exported, and TensorRT has all of them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.artifacts import ModelSpec
from edgekd.config import ExportConfig
from edgekd.export.onnx import save
from edgekd.profile.inference import multiply_add

PROBABILITIES, CLASSES, SCORES = "probabilities", "classes", "scores"


def sign(path: Path, spec: ModelSpec, config: ExportConfig) -> None:
    """Edit the graph of `spec` at `path`, `images` float32 [N, C, H, W] to `logits` [N, K], as `config` says.

    `pixels`: `images` become uint8 [N, H, W, C], normalised within with the spec's mean and std; `resize`: of that
    side, made smaller or larger within, bilinear without antialiasing. `softmax` adds the output `probabilities`
    [N, K], `top_k` the outputs `classes` int64 and `scores` [N, k], likeliest first: of probabilities with `softmax`,
    else of logits. `batch` fixes N.
    """
    if not (config.pixels or config.softmax or config.top_k or config.batch):
        return
    model = onnx.load(path)
    if config.pixels:
        _take_pixels(model.graph, spec, config.resize)
    _add_outputs(model.graph, config.softmax, config.top_k)
    if config.batch is not None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = config.batch
    save(model, path)


def _take_pixels(graph: Any, spec: ModelSpec, side: int | None) -> None:
    (images,) = (value for value in graph.input if value.name not in {tensor.name for tensor in graph.initializer})
    channels, height, width = spec.input_shape
    batch = images.type.tensor_type.shape.dim[0].dim_param
    given = [height, width] if side is None else [side, side]
    scale, shift = multiply_add(spec.mean or [0.0] * channels, spec.std or [1.0] * channels)
    constants = {f"{images.name}_scale": scale[:, None, None], f"{images.name}_shift": shift[:, None, None]}
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Cast", [], {"to": TensorProto.FLOAT}),
        ("Transpose", [], {"perm": [0, 3, 1, 2]}),
    ]
    if side is not None:
        name = f"{images.name}_zoom"
        constants[name] = np.array([1, 1, _zoom(side, height), _zoom(side, width)], np.float32)
        bilinear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        steps.append(("Resize", ["", name], bilinear))
    steps += [(op, [name], {}) for op, name in zip(("Mul", "Add"), list(constants)[:2], strict=True)]

    nodes, source, normalised = [], images.name, f"{images.name}_normalised"
    for op, others, options in steps:
        made = f"{images.name}_{op.lower()}" if op != "Add" else normalised
        nodes.append(helper.make_node(op, [source, *others], [made], made, **options))
        source = made
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == images.name:
                node.input[i] = normalised
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *old])
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    images.CopyFrom(helper.make_tensor_value_info(images.name, TensorProto.UINT8, [batch, *given, channels]))


def _zoom(given: int, wanted: int) -> np.float32:
    """The least float32 factor that makes `wanted` pixels of `given`: Resize counts them as floor(given * factor)."""
    factor = np.float32(wanted / given)
    while math.floor(np.float32(given) * factor) < wanted:
        factor = np.nextafter(factor, np.float32(np.inf))
    return factor


def _add_outputs(graph: Any, softmax: bool, top_k: int | None) -> None:
    logits = graph.output[0]
    kind, (batch, classes) = logits.type.tensor_type.elem_type, logits.type.tensor_type.shape.dim
    size: Any = batch.dim_param or batch.dim_value
    ranked = logits.name
    if softmax:
        ranked = PROBABILITIES
        graph.node.append(helper.make_node("Softmax", [logits.name], [ranked], ranked, axis=1))
        graph.output.append(helper.make_tensor_value_info(ranked, kind, [size, classes.dim_value]))
    if top_k is not None:
        count = min(top_k, classes.dim_value)
        graph.initializer.append(numpy_helper.from_array(np.array([count], np.int64), "top_k"))
        graph.node.append(helper.make_node("TopK", [ranked, "top_k"], [SCORES, CLASSES], "likeliest", axis=1))
        for name, of in ((CLASSES, TensorProto.INT64), (SCORES, kind)):
            graph.output.append(helper.make_tensor_value_info(name, of, [size, count]))
