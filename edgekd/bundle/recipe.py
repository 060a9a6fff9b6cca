"""build.json: what build.py on the device tells trtexec, by the version of TensorRT that it finds there."""

from __future__ import annotations

from typing import Any

from edgekd.catalog import SCHEMES
from edgekd.profile.devices import Device, version_parts

# Where trtexec's options change: 8.6 renamed --buildOnly, 10 takes the precision from the graph, 11 always does.
RELEASES = ("8.0", "8.6", "10.0", "11.0")


def recipe(models: list[dict[str, Any]], device: Device, max_batch: int) -> dict[str, Any]:
    """{"engines": {model: {"commands": [{"from", "before", "options"}]}}} for the manifest's `models`.

    Paths are relative to the bundle. Rows cover the releases that the device's systems bring; `before` is null where
    none ends them.
    """
    return {
        "engines": {
            model["name"]: {
                "commands": [
                    {"from": first, "before": before, "options": _options(model, first, max_batch)}
                    for first, before in zip(RELEASES, (*RELEASES[1:], None), strict=True)
                    if _brought(device, first, before)
                ]
            }
            for model in models
        }
    }


def _brought(device: Device, first: str, before: str | None) -> bool:
    span = device.tensorrt
    if span is None:
        return True
    ends = before is not None and version_parts(before) <= version_parts(span.min)
    begins_later = span.max is not None and version_parts(span.max) < version_parts(first)
    return not ends and not begins_later


def _options(model: dict[str, Any], release: str, max_batch: int) -> list[str]:
    version = version_parts(release)
    options = [f"--onnx={model['path']}", f"--saveEngine={model['engine']}"]
    (tensor,) = model["inputs"]
    if tensor["shape"][0] is None:
        sides = "x".join(str(size) for size in tensor["shape"][1:])
        for option, batch in (("min", 1), ("opt", 1), ("max", max_batch)):
            options.append(f"--{option}Shapes={tensor['name']}:{batch}x{sides}")
    if version < (10,):
        formats = SCHEMES[model["scheme"]].formats if model["scheme"] else ()
        options += [f"--{name}" for name in formats if name in ("int8", "fp16")]
    elif version < (11,):
        options.append("--stronglyTyped")
    options.append("--buildOnly" if version < (8, 6) else "--skipInference")
    return options
