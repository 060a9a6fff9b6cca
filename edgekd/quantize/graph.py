"""From a float model to a graph with fake quantizers, and from that to the ONNX file that ships.

BatchNorm is folded into the convolutions before anything is quantized, so the graph that calibrates and trains has the
weights, and the scales, of the graph that ships; its last bits do not hang on a batch's statistics.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgekd.artifacts import Checkpoint
from edgekd.errors import ModelError, RunError
from edgekd.export.onnx import export_fp32
from edgekd.models import build_model, read_state
from edgekd.quantize._fake import ActivationFakeQuantize, WeightFakeQuantize
from edgekd.quantize._torchao import convert_pt2e, prepare_pt2e
from edgekd.quantize.schemes.ort import OrtQuantizer


def prepare(model: nn.Module, input_shape: tuple[int, int, int], weight_bits: int) -> GraphModule:
    """`model` in eval mode as an exported graph, BatchNorm folded, with fake quantizers that calibrate."""
    images = torch.zeros(2, *input_shape).contiguous(memory_format=torch.channels_last)
    program = torch.export.export(model.eval(), (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    prepared: GraphModule = prepare_pt2e(program.module(), OrtQuantizer(weight_bits))
    for parameter in prepared.parameters():
        parameter.requires_grad_(True)
    return prepared


@torch.no_grad()
def calibrate(prepared: GraphModule, batches: Iterable[Tensor]) -> None:
    """Observe `batches` ([B, C, H, W] each), then freeze the ranges. Raises RunError on a range that is not finite."""
    for images in batches:
        prepared(images)
    for quantizer in prepared.modules():
        if isinstance(quantizer, ActivationFakeQuantize):
            quantizer.freeze()
            if not bool(torch.isfinite(quantizer.scale).all()):
                raise RunError(
                    f"calibration found activations of scale {quantizer.scale.item()}",
                    "The student computes values that are not finite: distill it again with a lower distill.lr.",
                )


@torch.no_grad()
def state_of(prepared: GraphModule, images: Tensor) -> dict[str, Tensor]:
    """The state dict, copied, with the scales of the weights as they are: a forward over `images` sets them."""
    prepared(images)
    return {key: value.detach().cpu().clone().contiguous() for key, value in prepared.state_dict().items()}


def restore(prepared: GraphModule, state: dict[str, Tensor]) -> None:
    """Load the state dict of a calibrated graph of the same model and scheme."""
    for name, quantizer in prepared.named_modules():
        if isinstance(quantizer, ActivationFakeQuantize | WeightFakeQuantize):
            quantizer.fix(state[f"{name}.scale"].clone(), state[f"{name}.zero_point"].clone())
    prepared.load_state_dict(state)


def rebuild(checkpoint: Checkpoint, weight_bits: int) -> GraphModule:
    """The calibrated graph of a quantized checkpoint. Raises ModelError when the file is another model's."""
    with torch.random.fork_rng():
        prepared = prepare(
            build_model(replace(checkpoint.spec, weights=None)), checkpoint.spec.input_shape, weight_bits
        )
    try:
        restore(prepared, read_state(checkpoint.weights))
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            f"{checkpoint.weights} does not fit {checkpoint.spec.name}: {error}", "Quantize the student again."
        ) from error
    return prepared


def convert(checkpoint: Checkpoint) -> GraphModule:
    """The torch graph of integers and Q/DQ that ONNX receives: images [B, C, H, W] -> logits [B, K]."""
    if checkpoint.scheme != "ort":
        raise ModelError(
            f"{checkpoint.path} has the quantization scheme {checkpoint.scheme!r}",
            "Name a checkpoint that quantize wrote.",
        )
    converted: GraphModule = convert_pt2e(rebuild(checkpoint, int(checkpoint.scheme_options["weight_bits"])))
    return converted


def export_quantized(checkpoint: Checkpoint, path: Path, opset: int) -> None:
    """Write the INT8 graph of a quantized checkpoint to the ONNX file `path`. Raises ModelError for a float one."""
    export_fp32(convert(checkpoint), path, checkpoint.spec.input_shape, opset, finish=_lower)


def _lower(model: Any) -> None:
    """Say two things the way ONNX Runtime's fusions know them: the global average pool, and the bias of a Gemm."""
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    nodes = []
    for node in graph.node:
        if node.op_type == "ReduceMean" and _is_global_pool(node, constants):
            node = helper.make_node("GlobalAveragePool", node.input[:1], node.output, name=node.name)
        elif node.op_type == "Gemm" and len(node.input) == 3 and node.input[2] in constants:
            scales = [numpy_helper.to_array(constants[maker[name].input[1]]) for name in node.input[:2]]
            scale = np.atleast_1d(scales[0] * scales[1]).astype(np.float32)
            bias = numpy_helper.to_array(constants[node.input[2]])
            scale = np.broadcast_to(scale, bias.shape).copy()
            name = node.input[2]
            integers = np.clip(np.round(bias.astype(np.float64) / scale), -(2**31), 2**31 - 1).astype(np.int32)
            for suffix, array in (("int32", integers), ("scale", scale), ("zero", np.zeros_like(integers))):
                graph.initializer.append(numpy_helper.from_array(array, f"{name}_{suffix}"))
            inputs = [f"{name}_{suffix}" for suffix in ("int32", "scale", "zero")]
            nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dequantized"], axis=0))
            node.input[2] = f"{name}_dequantized"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _is_global_pool(node: Any, constants: dict[str, Any]) -> bool:
    """Whether a ReduceMean is over the two spatial axes of [B, C, H, W] and keeps them."""
    from onnx import helper, numpy_helper

    keep = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "keepdims"), 1)
    if not keep or len(node.input) < 2 or node.input[1] not in constants:
        return False
    axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
    return sorted(axis % 4 for axis in axes) == [2, 3] and len(axes) == 2
