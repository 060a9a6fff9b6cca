"""What every scheme shares: where its fake quantizers stand, what they round to, and how its graph is written."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from edgekd.errors import ConfigError
from edgekd.profile.device import Device
from edgekd.quantize._fake import WeightFakeQuantize
from edgekd.quantize._torchao import (
    QuantizationAnnotation,
    QuantizationSpec,
    QuantizationSpecBase,
    Quantizer,
    convert_pt2e,
)

aten = torch.ops.aten

COMPUTE = {aten.conv1d.default, aten.conv2d.default, aten.linear.default}
ADD = {aten.add.Tensor, aten.add_.Tensor}
CONCAT = {aten.cat.default, aten.concat.default}
RELU = {aten.relu.default, aten.relu_.default, aten.relu6.default, aten.hardtanh.default, aten.hardtanh_.default}
MOVE = {
    aten.max_pool2d.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.slice.Tensor,
    aten.pad.default,
    aten.constant_pad_nd.default,
}


def integer_weights(bits: int) -> QuantizationSpec:
    """int8 symmetric of each output channel, in +-(2^(bits-1) - 1); fewer than 8 bits are stored as 8."""
    top = 2 ** (bits - 1) - 1
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-top,
        quant_max=top,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=WeightFakeQuantize,
    )


class Scheme(Quantizer):  # type: ignore[misc]
    """Annotates an exported graph whose BatchNorms are folded; made with the `options` its checkpoint keeps.

    `kept_float` names layers that are left alone, as `layer_name` has them.
    """

    translations: ClassVar[dict[Any, Any]] = {}  # torch operators to ONNX, for the exporter

    def __init__(self, kept_float: Sequence[str] = ()) -> None:
        super().__init__()
        self.kept_float = frozenset(kept_float)

    @classmethod
    def options(cls, device: Device, weight_bits: int | None = None) -> dict[str, Any]:
        """What it is made with on a target, as JSON. Raises ConfigError where it has no integer weights."""
        if weight_bits is None:
            return {}
        if "weight_bits" not in inspect.signature(cls).parameters:
            raise ConfigError(
                f"quantize.weight_bits: {weight_bits}, and {cls.__name__} has no integer weights", "Set it to null."
            )
        return {"weight_bits": weight_bits}

    @abstractmethod
    def annotate(self, model: GraphModule) -> GraphModule: ...

    def validate(self, model: GraphModule) -> None:
        """Nothing to refuse: what is not annotated stays float, and the lint says so."""

    def convert(self, prepared: GraphModule) -> GraphModule:
        """The calibrated graph with Q/DQ in place of its fake quantizers; `translations` are of its own operators."""
        converted: GraphModule = convert_pt2e(prepared)
        return converted

    def finish(self, model: Any) -> None:
        """Edit the onnx.ModelProto before it is written."""

    def computes(self, node: Node) -> bool:
        """Whether `node` is a convolution or linear layer, and none of those kept float."""
        return node.target in COMPUTE and layer_name(node) not in self.kept_float


def layer_name(node: Node) -> str:
    """The path of the module that a node of an exported graph comes from, as `named_modules` has it."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(list(stack.values())), ("", None))[0]
    return str(path).removeprefix("L['self'].").removeprefix("L__self___") or node.name


def layers(model: GraphModule) -> list[str]:
    """The names of all convolutions and linear layers, in the order of execution."""
    return [layer_name(node) for node in model.graph.nodes if node.target in COMPUTE]


def annotate(node: Node, inputs: dict[Node, QuantizationSpecBase], output: QuantizationSpecBase | None = None) -> None:
    node.meta["quantization_annotation"] = QuantizationAnnotation(inputs, output, _annotated=True)


def quantized(node: Any) -> bool:
    """Whether the output of `node` is annotated."""
    annotation = node.meta.get("quantization_annotation") if isinstance(node, Node) else None
    return annotation is not None and annotation.output_qspec is not None


def adds_activations(node: Node) -> bool:
    """Not the `add` of a number, nor that of a buffer (BatchNorm counts its batches so)."""
    return node.target in ADD and all(isinstance(arg, Node) and arg.op != "get_attr" for arg in node.args[:2])
