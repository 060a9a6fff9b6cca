"""The parts of torchao that quantization uses, imported in one place and without its deprecation chatter."""

from __future__ import annotations

import logging

_log = logging.getLogger("torch.utils._pytree")
_level = _log.level
_log.setLevel(logging.ERROR)  # torchao registers an enum in a way that newer torch warns about on every import
try:
    from torchao.quantization.pt2e import (
        FakeQuantizeBase,
        HistogramObserver,
        MinMaxObserver,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        QuantizationSpecBase,
        Quantizer,
        SharedQuantizationSpec,
    )
finally:
    _log.setLevel(_level)

__all__ = [
    "FakeQuantizeBase",
    "HistogramObserver",
    "MinMaxObserver",
    "QuantizationAnnotation",
    "QuantizationSpec",
    "QuantizationSpecBase",
    "Quantizer",
    "SharedQuantizationSpec",
    "convert_pt2e",
    "prepare_pt2e",
]
