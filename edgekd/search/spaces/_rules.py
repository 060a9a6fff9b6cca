"""What a target wants of a network's channels, as data: one tuple of rules a quantization scheme.

A rule looks at the channels of every INT8 tensor that a kernel writes; images and logits are free. Depthwise
convolutions are legal wherever their channels are: how little they gain is a matter of measurement, not of MACs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """Channels are at least `least` and a multiple of `multiple`, those of linear layers only if `linear`."""

    name: str
    reason: str
    least: int = 1
    multiple: int = 1
    linear: bool = True

    def allows(self, channels: int) -> bool:
        return channels >= self.least and channels % self.multiple == 0


# `ort`, measured on AVX2: a 3x3 convolution of a 16 x 16 map takes 23.1 us with 20 channels and 22.8 with 24, 34.8 with
# 28 and 29.0 with 32; a linear layer of 65 tokens 149.5 us with 756 outputs and 148.7 with 760, which excludes nothing.
# `tensorrt`: from 16 channels on NVIDIA's quantizer (ModelOpt) finds INT8 convolutions and products worth their while.
RULES: dict[str, tuple[Rule, ...]] = {
    "ort": (
        Rule(
            "multiples of 8",
            "its convolutions work on blocks of 8 channels, and a part of a block costs more than a whole one",
            multiple=8,
            linear=False,
        ),
    ),
    "tensorrt": (
        Rule("at least 16", "INT8 tensor cores take 16 channels or more, fewer run in float", least=16),
        Rule("multiples of 8", "INT8 tensors are stored in blocks of channels, and the last one is padded", multiple=8),
    ),
}
