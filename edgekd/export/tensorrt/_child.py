"""Builds one engine with TensorRT's Python API, alone in its process. Run as a script: `_child.py MODULE [VERSION]`.

MODULE is `tensorrt` (10 or 11) or `tensorrt_rtx`, whose API is the same. With the word `version` it prints that and
ends; else it reads a request as JSON from standard input, writes the plan, and logs to standard output as trtexec does.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def say(level: str, text: str) -> None:
    """A line of the log, out at once: a crash must not take the last one with it."""
    print(f"[{level}] [TRT] {text}", flush=True)


def logger(trt: Any) -> Any:
    severity = trt.ILogger.Severity
    levels = {severity.INTERNAL_ERROR: "E", severity.ERROR: "E", severity.WARNING: "W", severity.INFO: "I"}

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            if severity in levels:  # VERBOSE is a hundred times as long
                say(levels[severity], message)

    return Log()


def build(trt: Any, request: dict[str, Any]) -> bool:
    """Whether the plan was written; every object lives until then, since TensorRT does not keep them alive itself."""
    log = logger(trt)
    builder = trt.Builder(log)
    config = builder.create_builder_config()
    network = builder.create_network(_network_flags(trt, request))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(request["onnx"]):
        for error in map(parser.get_error, range(parser.num_errors)):
            say("E", f"{error.desc()} (in {error.node_operator()} {error.node_name()})")
        return False
    cache = _configure(trt, builder, config, request)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return False
    Path(request["plan"]).write_bytes(plan)
    if cache is not None:
        Path(request["timing_cache"]).write_bytes(config.get_timing_cache().serialize())
    return True


def _network_flags(trt: Any, request: dict[str, Any]) -> int:
    """TensorRT 11 and TensorRT-RTX know strongly typed networks only, 10 makes one where it is told to."""
    typed = request["strongly_typed"]
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if typed else 0


def _configure(trt: Any, builder: Any, config: Any, request: dict[str, Any]) -> Any:
    """Set what is asked for; returns the timing cache, or None."""
    for flag in request["flags"]:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if request["compute_capability"] is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{request['compute_capability']}"), 0)
    if request["workspace"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace"] << 20)
    if request["hardware"] is not None:
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, request["hardware"])
    if request["dla"] is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = request["dla"]
    if request["shapes"]:
        profile = builder.create_optimization_profile()
        for name, shapes in request["shapes"].items():
            profile.set_shape(name, *shapes)
        config.add_optimization_profile(profile)
    if request["timing_cache"] is None:
        return None
    file = Path(request["timing_cache"])
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def main() -> int:
    del sys.path[0]  # this directory, whose files are no top-level modules
    trt = import_module(sys.argv[1])
    if sys.argv[2:] == ["version"]:
        print(trt.__version__)
        return 0
    return 0 if build(trt, json.load(sys.stdin)) else 1


if __name__ == "__main__":
    sys.exit(main())
