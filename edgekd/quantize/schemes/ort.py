"""The `ort` scheme: where ONNX Runtime on CPUs wants Q/DQ, as a torchao PT2E quantizer.

Activations are uint8 affine per tensor, weights int8 symmetric per output channel (axis 0), biases stay float (the
runtime quantizes them itself). Q/DQ stands on the input of the network and on the output of every convolution, linear
layer and addition, after its ReLU, which is where ONNX Runtime fuses QLinearConv, QLinearAdd and QGemm. Operators that
only move values share the scale of their input; pooling is left to the Q/DQ of its neighbours, which fuse with it. The
logits stay float.

Weights take 8 bits, or 7 on processors without VNNI: there ONNX Runtime multiplies with `vpmaddubsw`, which adds two
products of uint8 x int8 into a saturating int16, and 2 * 255 * 63 fits where 2 * 255 * 127 does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgekd.profile.device import Device
from edgekd.profile.machine import has_vnni
from edgekd.quantize._fake import ActivationFakeQuantize
from edgekd.quantize._torchao import QuantizationSpec, QuantizationSpecBase, SharedQuantizationSpec
from edgekd.quantize.schemes._base import MOVE, RELU, Scheme, adds_activations, annotate, integer_weights, quantized
from edgekd.quantize.schemes._onnx import name_global_pools, pad_channels, round_gemm_biases, transpose_weights


class Ort(Scheme):
    """`weight_bits`: see above; fewer than 7 simulate what no kernel of ONNX Runtime executes as such."""

    def __init__(self, weight_bits: int, kept_float: Sequence[str] = ()) -> None:
        super().__init__(kept_float)
        self.activation = QuantizationSpec(
            dtype=torch.uint8,
            quant_min=0,
            quant_max=255,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=ActivationFakeQuantize,
        )
        self.weight = integer_weights(weight_bits)

    @classmethod
    def options(cls, device: Device, weight_bits: int | None = None) -> dict[str, Any]:
        most = 8 if has_vnni() else 7
        return {"weight_bits": min(most, weight_bits or most)}

    def annotate(self, model: GraphModule) -> GraphModule:
        for node in model.graph.nodes:
            if self.computes(node):
                self._surround(node, {node.args[0]: self.activation, node.args[1]: self.weight})
            elif adds_activations(node) and any(quantized(arg) for arg in node.args[:2]):
                self._surround(node, {arg: self.activation for arg in node.args[:2]})
            elif node.target in MOVE and quantized(node.args[0]):
                source = node.args[0]
                annotate(node, {source: self.activation}, SharedQuantizationSpec((source, node)))
        return model

    def finish(self, model: Any) -> None:
        name_global_pools(model)
        pad_channels(model)
        transpose_weights(model)
        round_gemm_biases(model)

    def _surround(self, node: Node, inputs: dict[Node, QuantizationSpecBase]) -> None:
        """Q/DQ on the inputs of `node`, and on its output or that of its ReLU unless those are the logits."""
        users = list(node.users)
        last = users[0] if len(users) == 1 and users[0].target in RELU else node
        output = None if any(user.op == "output" for user in last.users) else self.activation
        annotate(node, inputs, output if last is node else None)
        if last is not node:
            annotate(last, {}, output)
