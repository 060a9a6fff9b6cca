"""Hand-made Q/DQ graphs in NVIDIA's style, sound but for what a test plants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Nodes and constants of one graph, images [batch, 16, 8, 8] -> the last tensor."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.count = 0

    def put(self, name: str, array: Any) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def node(self, op: str, inputs: list[str], name: str | None = None, **attributes: Any) -> str:
        self.count += 1
        name = name or f"{op.lower()}_{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def qdq(self, x: str, scale: Any = 0.05, zero: Any = None, axis: int | None = None) -> str:
        """Quantize and dequantize: int8 about 0 unless told otherwise."""
        self.count += 1
        scale = np.asarray(scale, np.float32)
        zero = np.zeros(scale.shape, np.int8) if zero is None else zero
        constants = [self.put(f"scale_{self.count}", scale), self.put(f"zero_{self.count}", zero)]
        attributes = {} if axis is None else {"axis": axis}
        q = self.node("QuantizeLinear", [x, *constants], f"q_{self.count}", **attributes)
        return self.node("DequantizeLinear", [q, *constants], f"dq_{self.count}", **attributes)

    def conv(self, x: str, name: str, inputs: int = 16, **planted: Any) -> str:
        """3 x 3 to 16 channels; `planted`: weights (int8 | float | folded), scale, zero, axis, per_tensor, bias."""
        weights, axis = planted.get("weights", "int8"), planted.get("axis", 0)
        values = self.rng.integers(-127, 128, (16, inputs, 3, 3)).astype(np.int8)
        count = () if planted.get("per_tensor") else (values.shape[axis],)
        scale = np.full(count, planted.get("scale", 0.002), np.float32)
        zero = np.full(count, planted.get("zero", 0), np.int8)
        if weights == "float":
            weight = self.put(f"{name}_w", values.astype(np.float32) * 0.002)
        else:
            constants = [self.put(f"{name}_s", scale), self.put(f"{name}_z", zero)]
            attributes = {} if planted.get("per_tensor") else {"axis": axis}
            if weights == "folded":  # Q and DQ of float weights
                stored = self.put(f"{name}_w", values.astype(np.float32) * 0.002)
                weight = self.node("QuantizeLinear", [stored, *constants], f"{name}_q", **attributes)
            else:
                weight = self.put(f"{name}_w", values)
            weight = self.node("DequantizeLinear", [weight, *constants], f"{name}_dq", **attributes)
        bias = self.put(f"{name}_b", np.zeros(16, np.float32))
        if planted.get("bias") == "int32":
            stored = self.put(f"{name}_b", np.zeros(16, np.int32))
            constants = [
                self.put(f"{name}_bs", np.ones(16, np.float32)),
                self.put(f"{name}_bz", np.zeros(16, np.int32)),
            ]
            bias = self.node("DequantizeLinear", [stored, *constants], f"{name}_bias", axis=0)
        return self.node("Conv", [x, weight, bias], name, pads=[1] * 4)

    def save(self, path: Path, output: str, channels: int = 16) -> Path:
        used = {name for node in self.nodes for name in node.input}
        shapes = {"images": 16, output: channels}
        io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", c, 8, 8]) for n, c in shapes.items()]
        tensors = [tensor for name, tensor in self.constants.items() if name in used]
        graph = helper.make_graph(self.nodes, "g", io[:1], io[1:], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def residual(path: Path, fault: str = "") -> Path:
    """Convolution, ReLU, a residual block, a concatenation and a last convolution, with one fault, or none."""
    b = Builder()
    planted: dict[str, dict[str, Any]] = {
        "scale": {"scale": 0.0},
        "weight zero point": {"zero": 3},
        "granularity": {"per_tensor": True},
        "axis": {"axis": 1},
        "stored weights": {"weights": "folded"},
        "int32 bias": {"bias": "int32"},
    }
    x = b.conv(b.qdq("images", zero=np.uint8(128) if fault == "activation zero point" else None), "conv_1")
    if fault == "between fused":
        x = b.qdq(x)
    x = b.node("Relu", [x], "relu_1")
    if fault == "activation granularity":
        read = b.qdq(x, np.full(16, 0.05), axis=1)
    else:
        read = b.qdq(x)
    if fault == "cast":
        half = b.node("Cast", [read], "cast_1", to=TensorProto.FLOAT16)
        inner = b.conv(b.node("Cast", [half], "cast_2", to=TensorProto.FLOAT), "conv_2")
    elif fault == "float input":
        inner = b.conv(x, "conv_2")
    else:
        inner = b.conv(read, "conv_2", **planted.get(fault, {}))
    if fault == "addition":
        inner = b.qdq(inner)
    x = b.node("Add", [inner, x if fault == "float skip" else read], "add_1")
    x = b.node("Relu", [x], "relu_2")
    one, other = (
        b.qdq(x),
        b.qdq(b.node("MaxPool", [x], "pool", kernel_shape=[1, 1]), 0.04 if fault == "concatenation" else 0.05),
    )
    x = b.qdq(b.node("Concat", [one, other], "concat", axis=1))
    x = b.conv(x, "conv_3", inputs=32)
    return b.save(path, x)
