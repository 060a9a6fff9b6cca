"""The child process of `tensorrt_rtx.build`: a request as JSON on standard input, an answer on standard output."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import tensorrt_rtx as trt


class Log(trt.ILogger):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(message)
        elif severity == trt.ILogger.Severity.WARNING:
            self.warnings.append(message)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    log, begun = Log(), time.perf_counter()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    result: dict[str, Any] = {"version": trt.__version__, "plan_bytes": 0, "warnings": log.warnings}
    if not parser.parse_from_file(request["onnx"]):
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        return {**result, "seconds": time.perf_counter() - begun, "errors": [error.desc() for error in found]}
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{request['compute_capability']}"), 0)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shapes = [[size if side < 0 else side for side in tensor.shape] for size in request["batch"]]
        profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    result["seconds"] = time.perf_counter() - begun
    if plan is None:
        return {**result, "errors": log.errors or ["the builder gave no engine and no reason"]}
    data = bytes(plan)
    if request["plan"] is not None:
        Path(request["plan"]).write_bytes(data)
    return {**result, "plan_bytes": len(data), "errors": []}


if __name__ == "__main__":
    print(json.dumps(answer(json.load(sys.stdin))))
