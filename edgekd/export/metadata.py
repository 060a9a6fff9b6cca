"""What a graph says of itself, as ONNX metadata_props: strings under `edgekd.*`, none of them a path."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgekd import __version__
from edgekd.artifacts import ModelSpec
from edgekd.config import ExportConfig


def describe(
    spec: ModelSpec, fingerprint: str, classes: Sequence[str] | None = None, config: ExportConfig | None = None
) -> dict[str, str]:
    """The keys of a graph of `spec`: `edgekd.version`, `.fingerprint`, `.preprocessing` and, where known, `.classes`.

    `fingerprint` is that of the checkpoint it was exported from. Preprocessing is JSON: a uint8 image of `size` pixels
    [H, W] and `channels` becomes (x / 255 - mean) / std in float32, in `layout` with the batch first; it stays as it
    is where `config` has the graph do that. Classes are JSON: the names in the order of the logits.
    """
    channels, height, width = spec.input_shape
    if config is not None and config.pixels:
        size = [config.resize or height, config.resize or width]
        preprocessing = {"size": size, "channels": channels, "layout": "NHWC", "dtype": "uint8"}
    else:
        preprocessing = {
            "size": [height, width],
            "channels": channels,
            "layout": "NCHW",
            "dtype": "float32",
            "mean": list(spec.mean) or [0.0] * channels,
            "std": list(spec.std) or [1.0] * channels,
        }
    found = {
        "edgekd.version": __version__,
        "edgekd.fingerprint": fingerprint,
        "edgekd.preprocessing": json.dumps(preprocessing, sort_keys=True),
    }
    if classes is not None:
        found["edgekd.classes"] = json.dumps(list(classes), ensure_ascii=False)
    return found
