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

    converted = convert_float_to_float16(
        model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *KEPT_FLOAT], force_fp16_initializers=False
    )
    graph = from_proto(converted)  # its Casts stand at the end
    TopologicalSortPass()(graph)
    model.CopyFrom(to_proto(graph))
