"""TensorRT on the device, by trtexec alone: it builds the engine, gives its outputs, and times it.

Each turn is a process of its own, which loads the engine, warms up for 200 ms and stores every sample.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.artifacts import OnnxModel
from edgekd.catalog import BACKENDS
from edgekd.errors import BackendError, ModelError, RuntimeMissingError
from edgekd.export.tensorrt.checks import check_target, check_version
from edgekd.export.tensorrt.graph import read_graph
from edgekd.export.tensorrt.log import last_lines, parse
from edgekd.export.tensorrt.request import BuildRequest
from edgekd.export.tensorrt.trtexec import build_arguments, timing_arguments
from edgekd.profile._client import Timed
from edgekd.profile.board import Board
from edgekd.profile.device import Device, version_parts
from edgekd.profile.hosts.agent import Agent, Arrays
from edgekd.stage import fingerprint

BUILD_S = 3600
WARMUP_MS = 200
_PLAN, _LOG = "engine.plan", "engine.log"


class Trtexec:
    package: str | None = None  # of Python: none is needed
    turn: int | None = BACKENDS["trtexec"].turn

    def __init__(self, agent: Agent, board: Board, device: Device, started: dict[str, Any]) -> None:
        if board.trtexec is None or board.tensorrt is None:
            raise RuntimeMissingError(
                f"the device has no trtexec{f', only TensorRT {board.tensorrt}' if board.tensorrt else ''}",
                "On a Jetson: sudo apt-get install nvidia-jetpack; elsewhere add TensorRT's bin directory to PATH.",
            )
        self._agent, self._device, self._program = agent, device, board.trtexec
        self._version, self._written = version_parts(board.tensorrt), board.tensorrt
        self._gpu = [board.model, *board.gpus, device.sm]
        self._scratch, self._cache = started["scratch"], started["cache"]
        self._requests: dict[str, BuildRequest] = {}
        self._plans: dict[str, str] = {}
        self._graphs: dict[str, bool] = {}
        self._inputs: dict[tuple[str, int], str] = {}

    def conditions(self) -> dict[str, Any]:
        return {
            "clock": "trtexec: GPU events, one inference queued ahead",
            "transfers": "inputs and outputs are copied, in the time; h2d and d2h apart",
        }

    def add(self, id: str, model: OnnxModel, batch: int, cuda_graph: bool) -> tuple[str, dict[str, Any]]:
        """Build an engine for one batch size, or take the one of the cache. Raises BackendError with its log's end."""
        graph = read_graph(Path(model.path))
        fixed = {shape[0] for shape in graph.inputs.values() if shape and shape[0] is not None}
        if fixed and fixed != {batch}:
            raise ModelError(
                f"{Path(model.path).name} is for batch {', '.join(map(str, fixed))}, not {batch}", "Export it for that."
            )
        request = BuildRequest(
            graph=graph, compute_capability=self._device.sm_number, batch=None if fixed else (batch, batch, batch)
        )
        check_target(request, self._device)
        check_version(request, self._version)
        options = build_arguments(self._version, replace(request, graph=replace(graph, path=Path("model.onnx"))), _PLAN)
        key = fingerprint([model.fingerprint(), self._written, self._gpu, options])
        there = replace(
            request,
            graph=replace(graph, path=Path(self._agent.put_model(model))),
            timing_cache=Path(self._cache) / f"timing-{self._written}.cache",
        )
        built: dict[str, Any] = {"cached": True}
        plan = self._agent.find(key, _PLAN)
        if plan is None:
            plan, built = self._build(there, key, Path(model.path).name)
        self._requests[id], self._plans[id], self._graphs[id] = there, plan, cuda_graph
        return f"TensorRT {self._written}", {"cuda_graph": cuda_graph, "engine_build": {**built, "arguments": options}}

    def _build(self, request: BuildRequest, key: str, name: str) -> tuple[str, dict[str, Any]]:
        code, lines = self._agent.run(
            [self._program, *build_arguments(self._version, request, f"{self._scratch}/{_PLAN}")], BUILD_S
        )
        text = "\n".join(line for _, line in lines)
        log = parse(text)
        if code != 0 or log.passed is not True:
            killed = code in (-9, 137) or "out of memory" in text.lower()
            raise BackendError(
                f"trtexec {self._written} on the device built nothing of {name} (exit code {code}): {last_lines(text)}",
                "It ran out of memory there: end other programs, or add swap."
                if killed
                else f"Run edgekd lint {name} --target {self._device.name}.",
            )
        with tempfile.TemporaryDirectory(prefix="edgekd-") as directory:
            file = Path(directory) / _LOG
            file.write_text(text)
            self._agent.put(file, key)
        plan = self._agent.keep(_PLAN, key, _PLAN)
        seconds = round(lines[-1][0] - lines[0][0], 1) if lines else 0.0
        return plan, {"cached": False, "seconds": seconds, "warnings": list(log.warnings), **log.figures}

    def feed(self, id: str, batch: int, feeds: Arrays, files: dict[str, str]) -> None:
        parts = []
        for name in feeds:
            quoted = f"'{name}'" if {":", ","} & set(name) else name
            parts.append(f"{quoted}:{self._scratch}/{files[name]}")
        self._inputs[id, batch] = f"--loadInputs={','.join(parts)}"

    def infer(self, id: str, batch: int) -> Arrays:
        self._run(id, batch, 1, 0, 0, f"--exportOutput={self._scratch}/outputs.json")
        return {
            row["name"]: np.asarray(row["values"], np.float32).reshape([int(n) for n in row["dimensions"].split("x")])
            for row in json.loads(self._agent.result("outputs.json"))
        }

    def time(self, id: str, batch: int, n: int, warmup: int) -> Timed:
        """`warmup` is trtexec's own 200 ms before every turn; it does not tell when it was interrupted."""
        if n == 0:
            return Timed([], 0, {})
        self._run(id, batch, n, 0, WARMUP_MS)
        rows = json.loads(self._agent.result("times.json"))[-n:]  # before 8.6 the warm-up is in it, at the front
        if len(rows) < n:
            raise BackendError(f"trtexec timed {len(rows)} of {n} runs", "This is a bug in edgekd: please report it.")
        phases = {name: [round(1e6 * row[f"{name}Ms"]) for row in rows] for name in ("h2d", "compute", "d2h")}
        return Timed([round(1e6 * row["latencyMs"]) for row in rows], 0, phases)

    def sustain(self, id: str, batch: int, seconds: float) -> tuple[int, tuple[float, float]]:
        lines = self._run(id, batch, 1, math.ceil(seconds), WARMUP_MS)
        began = [at for at, line in lines if "Starting inference" in line]
        ended = [at for at, line in lines if "Warmup completed" in line]  # said when all is over
        rows = json.loads(self._agent.result("times.json"))
        if not began or not ended or not rows:
            return 0, (0.0, 0.0)
        rate = len(rows) / (rows[-1]["endD2hMs"] - rows[0]["startH2dMs"]) * 1e3
        return round(rate * (ended[0] - began[0])), (began[0], ended[0])

    def _run(self, id: str, batch: int, n: int, seconds: int, warmup_ms: int, *more: str) -> list[tuple[float, str]]:
        arguments = timing_arguments(
            self._version,
            self._requests[id],
            self._plans[id],
            batch=batch,
            cuda_graph=self._graphs[id],
            seconds=seconds,
            warmup_ms=warmup_ms,
            times=f"{self._scratch}/times.json",
        )
        command = [self._program, *arguments, f"--iterations={n}", self._inputs[id, batch], *more]
        code, lines = self._agent.run(command, seconds + 600)
        text = "\n".join(line for _, line in lines)
        if code != 0 or parse(text).passed is not True:
            raise BackendError(
                f"trtexec {self._written} on the device did not run its engine (exit code {code}): {last_lines(text)}",
                "Remove ~/.cache/edgekd there if the system changed since it was built.",
            )
        return lines
