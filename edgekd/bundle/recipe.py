"""build.json: what build.py on the device tells trtexec, by the version of TensorRT that it finds there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekd.errors import InputError
from edgekd.export.tensorrt import BuildRequest, read_graph
from edgekd.export.tensorrt.checks import check_version
from edgekd.export.tensorrt.trtexec import build_arguments
from edgekd.profile.device import Device, version_parts

# Where what trtexec takes changes: the newest opset with each of them, the precision from the graph with 10 and 11.
RELEASES = ("8.0", "8.4", "8.6", "10.0", "10.13", "11.0")


def recipe(root: Path, models: list[dict[str, Any]], device: Device, max_batch: int) -> dict[str, Any]:
    """{"engines": {model: {"commands": [{"from", "before", "options"}]}}} for the manifest's `models`.

    In place of `options` are `refused` and `fix` where such a release cannot build the model. Paths are relative to the
    bundle at `root`. Rows cover the releases that the device's systems bring; `before` is null where none ends them.
    """
    spans = [
        (first, before)
        for first, before in zip(RELEASES, (*RELEASES[1:], None), strict=True)
        if _brought(device, first, before)
    ]
    return {
        "engines": {
            model["name"]: {
                "commands": [
                    {"from": first, "before": before, **_command(root, model, device, first, max_batch)}
                    for first, before in spans
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


def _command(root: Path, model: dict[str, Any], device: Device, release: str, max_batch: int) -> dict[str, Any]:
    graph, version = read_graph(root / model["path"]), version_parts(release)
    request = BuildRequest(graph=replace(graph, path=Path(model["path"])), compute_capability=device.sm_number)
    if request.shapes(1):
        request = replace(request, batch=(1, 1, max_batch))
    try:
        check_version(request, version)
    except InputError as error:
        return {"refused": error.what, "fix": error.fix}
    return {"options": build_arguments(version, request, model["engine"])}
