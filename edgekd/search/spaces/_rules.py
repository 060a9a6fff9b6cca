"""What a target wants of a network's channels, as data: one tuple of rules a quantization scheme.

A rule looks at the channels of every INT8 tensor that a kernel writes; images and logits are free. Depthwise
convolutions are legal wherever their channels are: how little they gain is a matter of measurement, not of MACs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """Channels are at least `least` and a multiple of `multiple`; `reason` says why."""

    name: str
    reason: str
    least: int = 1
    multiple: int = 1

    def allows(self, channels: int) -> bool:
        return channels >= self.least and channels % self.multiple == 0


# Measured for `ort` on AVX2: a 3x3 convolution at 16 x 16 takes 23.1 us with 20 channels and 22.8 with 24, 34.8 with 28
# and 29.0 with 32. For `tensorrt` it is where NVIDIA's quantizer (ModelOpt) leaves a convolution in float.
RULES: dict[str, tuple[Rule, ...]] = {
    "ort": (
        Rule(
            "multiples of 8", "its kernels work on blocks of 8: channels between cost as the next multiple", multiple=8
        ),
    ),
    "tensorrt": (
        Rule("at least 16", "INT8 tensor cores take 16 channels or more: fewer run in float", least=16),
        Rule("multiples of 8", "INT8 tensors are stored in blocks of channels: others are padded", multiple=8),
    ),
}
