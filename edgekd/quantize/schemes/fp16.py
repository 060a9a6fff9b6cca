"""The `fp16` scheme: no integers. The graph's weights and activations are FP16, its inputs and outputs FP32."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule

from edgekd.export.fp16 import to_fp16
from edgekd.quantize.schemes._base import Scheme
from edgekd.quantize.schemes._onnx import name_global_pools


class Fp16(Scheme):
    def annotate(self, model: GraphModule) -> GraphModule:
        return model

    def finish(self, model: Any) -> None:
        name_global_pools(model)
        to_fp16(model)
