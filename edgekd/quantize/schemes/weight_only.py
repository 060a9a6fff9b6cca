"""The `int8-weight-only` scheme: weights are stored as int8 per output channel, and everything is computed in float.

A file of a quarter of the size, for memory and download; no runtime is faster for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import GraphModule

from edgekd.quantize.schemes._base import Scheme, annotate, integer_weights
from edgekd.quantize.schemes._onnx import name_global_pools, transpose_weights


class WeightOnly(Scheme):
    def __init__(self, kept_float: Sequence[str] = (), weight_bits: int = 8) -> None:
        super().__init__(kept_float)
        self.weight = integer_weights(weight_bits)

    def annotate(self, model: GraphModule) -> GraphModule:
        for node in model.graph.nodes:
            if self.computes(node):
                annotate(node, {node.args[1]: self.weight})
        return model

    def finish(self, model: Any) -> None:
        name_global_pools(model)
        transpose_weights(model)
