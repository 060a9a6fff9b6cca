"""A TensorRT engine of any ONNX file as a directory that describes itself, and the commands to build it elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgekd.artifacts import Engine
from edgekd.errors import InputError, TargetError
from edgekd.export import tensorrt
from edgekd.export.tensorrt.checks import check_target, check_version
from edgekd.export.tensorrt.trtexec import build_arguments, program, timing_arguments
from edgekd.profile.device import Device, version_parts
from edgekd.profile.devices import load_device
from edgekd.profile.jetpack import releases
from edgekd.profile.latency_table import cache_directory
from edgekd.stage import RunDirectory, digest_file, write_json

CURRENT = ("10.16", "11.4")  # the newest of either kind, for targets whose TensorRT their user chooses


def build_engine(
    path: Path,
    target: str,
    out: Path,
    options: tensorrt.BuildOptions,
    *,
    builder: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """An engine of an ONNX file for `target`, as `out/build/<name>.engine` with build.json and build.log.

    Returns build.json's record: the Engine, who built it in how many seconds, its bytes, and what the log says. Raises
    an InputError for what cannot be built, before a runtime is touched, and BackendError where the builder refuses.
    """
    device, request = _request(path, target, options)
    check_target(request, device)
    chosen = tensorrt.choose(device, builder)
    version = str(chosen.version())
    if chosen.runtime == "tensorrt":
        caches = cache_directory() / "timing"
        caches.mkdir(parents=True, exist_ok=True)
        request = replace(request, timing_cache=caches / f"tensorrt-{version}-{device.sm}.cache")
    name = f"{path.stem}.engine"

    def fill(partial: Path) -> None:
        built = tensorrt.build(request, device, chosen, partial / name, partial / "build.log")
        engine = Engine(
            path=name,
            backend=chosen.runtime,
            device={"target": device.name, "compute_capability": str(built.compute_capability)},
            versions={chosen.runtime: built.version},
            build_log="build.log",
        )
        made = {"builder": built.builder, "seconds": built.seconds, "bytes": built.header.bytes}
        said = {"warnings": list(built.log.warnings), "figures": built.log.figures}
        write_json(partial / "build.json", {**engine.to_json(), **made, "batch": request.batch, **said})

    data = [digest_file(file) for file in (path, path.with_name(f"{path.name}.data")) if file.is_file()]
    inputs = {
        "onnx": data,
        "device": device.fingerprint(),
        "builder": [chosen.name, version],
        "options": asdict(options),
    }
    with RunDirectory(out).locked() as run:
        result = run.run("build", inputs, fill, force=force)
    record = json.loads((result.path / "build.json").read_text())
    return {**record, "path": str(result.path / name), "build_log": str(result.path / "build.log")}


def engine_commands(path: Path, target: str, options: tensorrt.BuildOptions) -> list[dict[str, Any]]:
    """What to run on the target itself: trtexec's command lines for every TensorRT that it may have.

    Each record has `tensorrt`, and `build` and `time` as lists of words, or `refused` where that version cannot.
    """
    device, request = _request(path, target, options)
    check_target(request, device)
    request = replace(request, graph=replace(request.graph, path=Path(path.name)))  # where it lies there is not known
    engine = f"{path.stem}.engine"
    records: list[dict[str, Any]] = []
    for version in _versions(device):
        parts = version_parts(version)
        try:
            check_version(request, parts)
        except InputError as error:
            records.append({"tensorrt": version, "refused": f"{error.what}. {error.fix}"})
            continue
        batch = 1 if request.batch is None else request.batch[1]
        build = build_arguments(parts, request, engine)
        time = timing_arguments(parts, request, engine, batch=batch, times=f"{path.stem}-times.json")
        words = {"build": [program(device), *build], "time": [program(device), *time]}
        records.append({"tensorrt": version, **words})
    return records


def _request(path: Path, target: str, options: tensorrt.BuildOptions) -> tuple[Device, tensorrt.BuildRequest]:
    device = load_device(target)
    if device.backend != "tensorrt":
        raise TargetError(
            f"target {device.name} runs {device.backend}, which loads the ONNX file itself",
            "Engines are for targets of TensorRT; `edgekd targets` lists them.",
        )
    graph = tensorrt.read_graph(path)
    return device, tensorrt.BuildRequest(graph=graph, compute_capability=device.sm_number, **asdict(options))


def _versions(device: Device) -> list[str]:
    """Those of the JetPacks that support a Jetson, and the newest it takes."""
    span = device.tensorrt
    if span is None or device.jetpack is None:
        return list(CURRENT)
    found = [release.tensorrt for release in releases(device)]
    return list(dict.fromkeys([*found, *([span.max] if span.max is not None else [])]))
