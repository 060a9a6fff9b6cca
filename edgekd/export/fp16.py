"""FP32 graph -> strongly typed FP16 graph: TensorRT 11 takes its precision from the graph and has no flags for it."""

from __future__ import annotations

from typing import Any

KEPT_FLOAT = ["LayerNormalization", "InstanceNormalization", "GroupNormalization"]  # sums of squares leave FP16's range


def to_fp16(model: Any) -> None:
    """Every float tensor of an onnx.ModelProto to FP16, scales of Q/DQ among them; in place.

    Inputs and outputs stay FP32 behind a Cast, so do normalisations.
    """
    from onnx_ir import from_proto, to_proto
    from onnx_ir.passes.common import TopologicalSortPass
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    _unshare(model.graph)
    converted = convert_float_to_float16(
        model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *KEPT_FLOAT], force_fp16_initializers=False
    )
    del converted.graph.value_info[:]  # some keep the type they had before
    graph = from_proto(converted)  # its Casts stand at the end
    TopologicalSortPass()(graph)
    model.CopyFrom(to_proto(graph))


def _unshare(graph: Any) -> None:
    """A constant of its own for every node kept float: the converter names its Casts after the constants."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    seen: set[str] = set()
    for node in graph.node:
        if node.op_type not in KEPT_FLOAT:
            continue
        for place, name in enumerate(node.input):
            if name in constants and name in seen:
                copy = graph.initializer.add()
                copy.CopyFrom(constants[name])
                copy.name = node.input[place] = f"{name}_{node.name}"
            seen.add(name)
