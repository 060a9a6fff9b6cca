"""The `tensorrt` scheme: where TensorRT wants Q/DQ, as a torchao PT2E quantizer.

Activations are int8 symmetric per tensor with zero point 0, weights int8 symmetric per output channel, biases stay
float: NVIDIA's parser refuses other zero points and int32 biases. Placement follows what TensorRT fuses:

- Q/DQ on the inputs of convolutions and linear layers, none on their outputs: convolution, bias, ReLU and addition are
  one kernel, which takes the scale of whoever reads its output;
- of a residual addition only the skip branch, so that the other convolution runs into the addition;
- the inputs of a concatenation that is quantized share one scale, else each is requantized on the way in;
- what only moves values (max pooling, reshapes) has none: TensorRT carries Q/DQ across.

Convolutions without an INT8 kernel worth its name stay float: NVIDIA's rule for channels (see `has_kernel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgekd.quantize._fake import ActivationFakeQuantize
from edgekd.quantize._torchao import QuantizationSpec, SharedQuantizationSpec
from edgekd.quantize.schemes._base import (
    COMPUTE,
    CONCAT,
    MOVE,
    Scheme,
    adds_activations,
    annotate,
    aten,
    integer_weights,
)
from edgekd.quantize.schemes._onnx import name_global_pools, transpose_weights

LEAST = 16  # channels


class TensorRt(Scheme):
    def __init__(self, kept_float: Sequence[str] = (), weight_bits: int = 8) -> None:
        super().__init__(kept_float)
        self.activation = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_tensor_symmetric,
            observer_or_fake_quant_ctr=ActivationFakeQuantize,
        )
        self.weight = integer_weights(weight_bits)

    def annotate(self, model: GraphModule) -> GraphModule:
        for node in model.graph.nodes:
            if self.computes(node) and has_kernel(node):
                annotate(node, {node.args[0]: self.activation, node.args[1]: self.weight})
        for node in model.graph.nodes:
            if adds_activations(node):
                skip = skip_branch(node)
                if skip is not None:
                    annotate(node, {skip: self.activation})
            elif node.target in CONCAT and self._read_by_integers(node):
                first, *others = dict.fromkeys(node.args[0])
                shared = SharedQuantizationSpec((first, node))
                annotate(node, {first: self.activation, **dict.fromkeys(others, shared)}, shared)
        return model

    def finish(self, model: Any) -> None:
        name_global_pools(model)
        transpose_weights(model)

    def _read_by_integers(self, node: Node) -> bool:
        """Whether a quantized layer reads the values of `node`, moved or not."""
        for user in node.users:
            annotation = user.meta.get("quantization_annotation")
            if annotation is not None and annotation.input_qspec_map.get(node) is self.activation:
                return True
            if user.target in MOVE and self._read_by_integers(user):
                return True
        return False


def has_kernel(node: Node) -> bool:
    """Whether an INT8 convolution or linear layer of this shape is faster than FP16 (ModelOpt's rules for TensorRT).

    Not grouped: both sides have 16 channels, or one has and one is a multiple of 8, as the first convolution of an
    image. Grouped: a multiple of 8 channels and no kernel side below 3. Linear layers: both sides 16.
    """
    shape = node.args[1].meta["val"].shape  # type: ignore[union-attr]
    outputs, inputs, kernel = shape[0], shape[1], shape[2:]
    if node.target is aten.linear.default:
        return bool(min(outputs, inputs) >= LEAST)
    groups = node.args[6] if len(node.args) > 6 else 1
    if groups != 1:
        return bool(outputs % 8 == 0 and all(side >= 3 for side in kernel))
    if min(outputs, inputs) >= LEAST:
        return True
    square = len(set(kernel)) == 1
    return bool(max(outputs, inputs) >= LEAST and (outputs % 8 == 0 or inputs % 8 == 0) and square)


def skip_branch(node: Node) -> Node | None:
    """The input of a residual addition that gets Q/DQ: the one that does not come straight from a convolution.

    Where both do, the shorter path is the skip. None where neither does, as in a transformer, whose residual stream
    stays float.
    """
    one, other = (arg for arg in node.args[:2] if isinstance(arg, Node))
    fused = [arg for arg in (one, other) if arg.target in (aten.conv1d.default, aten.conv2d.default)]
    if one is other or not fused:
        return None
    main = fused[0] if len(fused) == 1 else max(fused, key=_length)
    return other if main is one else one


def _length(node: Node) -> int:
    """Convolutions on the chain above a node, up to the first addition or fork."""
    count = 0
    source: Any = node
    while isinstance(source, Node) and source.args and source.target not in CONCAT and not adds_activations(source):
        count += source.target in COMPUTE
        source = source.args[0]
        if isinstance(source, Node) and len([u for u in source.users if u.op != "output"]) > 1 and count:
            break
    return count
