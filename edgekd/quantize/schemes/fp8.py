"""The `fp8` scheme: E4M3 where `tensorrt` has INT8, for tensor cores of sm_89 and later, and FP16 for all the rest.

A scale is the largest magnitude over 448, E4M3's largest number. torchao's PT2E has no Q/DQ of FP8, so each fake
quantizer becomes an operator of our own, which the exporter writes as QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.fx import GraphModule

from edgekd.export.fp16 import to_fp16
from edgekd.export.lower import drop_unused
from edgekd.quantize._fake import Fp8FakeQuantize, Fp8WeightFakeQuantize, round_fp8
from edgekd.quantize.schemes.tensorrt import TensorRt


@torch.library.custom_op("edgekd::qdq_fp8", mutates_args=())
def qdq_fp8(x: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Q and DQ of x with one scale (axis -1), or one for every index of `axis`."""
    return round_fp8(x, scale if axis < 0 else scale.view(*(-1 if i == axis else 1 for i in range(x.ndim))))


@qdq_fp8.register_fake
def _(x: Tensor, scale: Tensor, axis: int) -> Tensor:
    return torch.empty_like(x)


def _to_onnx(x: Any, scale: Any, axis: int) -> Any:
    from onnxscript import opset19

    op: Any = opset19
    zero = op.Cast(op.Mul(scale, 0.0), to=TensorProto.FLOAT8E4M3FN)
    along = {} if axis < 0 else {"axis": axis}
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero, **along), scale, zero, **along)


class _Qdq(nn.Module):
    """What a fake quantizer becomes in the graph that is exported."""

    def __init__(self, scale: Tensor, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("scale", scale.detach().clone() if axis >= 0 else scale.detach().reshape(()).clone())

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, qdq_fp8(x, self.scale, self.axis))


class Fp8(TensorRt):
    translations: ClassVar[dict[Any, Any]] = {torch.ops.edgekd.qdq_fp8.default: _to_onnx}

    def __init__(self, kept_float: Sequence[str] = ()) -> None:
        super().__init__(kept_float)
        self.activation = replace(self.activation, observer_or_fake_quant_ctr=Fp8FakeQuantize)
        self.weight = replace(self.weight, observer_or_fake_quant_ctr=Fp8WeightFakeQuantize)

    def convert(self, prepared: GraphModule) -> GraphModule:
        for name, module in list(prepared.named_modules(remove_duplicate=False)):
            if isinstance(module, Fp8FakeQuantize | Fp8WeightFakeQuantize):
                axis = 0 if isinstance(module, Fp8WeightFakeQuantize) else -1
                parent, _, leaf = name.rpartition(".")
                setattr(prepared.get_submodule(parent), leaf, _Qdq(module.scale, axis))
        return prepared

    def finish(self, model: Any) -> None:
        store_weights(model)
        super().finish(model)
        to_fp16(model)


def store_weights(model: Any) -> None:
    """Weights behind a QuantizeLinear are stored as FP8 themselves."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in constants]:
        weights, scale = (numpy_helper.to_array(constants[name]) for name in node.input[:2])
        ratio = torch.from_numpy(weights / scale.reshape(-1, *[1] * (weights.ndim - 1))).clamp(-448, 448)
        values = ratio.to(torch.float8_e4m3fn).view(torch.uint8).numpy()
        name = f"{node.input[0]}_fp8"
        dims, raw = list(weights.shape), np.ascontiguousarray(values).tobytes()
        graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, dims, raw, raw=True))
        for reader in graph.node:
            for place, read in enumerate(reader.input):
                if read == node.output[0]:
                    reader.input[place] = name
        graph.node.remove(node)
    drop_unused(model)
