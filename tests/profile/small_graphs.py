"""ONNX graphs of a few nodes, for what is worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def graph(
    nodes: Sequence[Any],
    weights: Mapping[str, Sequence[int]],
    image: Sequence[int | str] = ("batch", 4, 8, 8),
    outputs: str = "y",
    others: Mapping[str, Any] | None = None,
) -> Any:
    """From `x` of size `image`; weights are zeros of the given sizes, `others` constants as they are."""
    held = [numpy_helper.from_array(np.zeros(size, np.float32), name) for name, size in weights.items()]
    held += [numpy_helper.from_array(np.asarray(value), name) for name, value in (others or {}).items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, image)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()]
    made = helper.make_graph(nodes, "g", [x], ends, held)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def two_layers() -> Any:
    """A 3x3 convolution to 16 channels with ReLU, and one of 1x1 to 8 of stride 2: [N, 4, 8, 8] to [N, 8, 4, 4]."""
    nodes = [
        node("Conv", "x w1 b1", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "r"),
        node("Conv", "r w2 b2", "y", strides=[2, 2]),
    ]
    return graph(nodes, {"w1": (16, 4, 3, 3), "b1": (16,), "w2": (8, 16, 1, 1), "b2": (8,)})
