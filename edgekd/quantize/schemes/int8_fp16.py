"""The `int8+fp16` scheme: Q/DQ where `tensorrt` has it, and FP16 instead of FP32 for all the rest.

Scales are FP16 in such a graph, so they are rounded to FP16 before anything is computed with them.
"""

from __future__ import annotations

from typing import Any

from edgekd.export.fp16 import to_fp16
from edgekd.quantize.schemes.tensorrt import TensorRt


class Int8Fp16(TensorRt):
    def finish(self, model: Any) -> None:
        super().finish(model)
        to_fp16(model)
