"""ONNX Runtime on the device: the agent loads and times it in its own process."""

from __future__ import annotations

import statistics
from typing import Any

from edgekd.artifacts import OnnxModel
from edgekd.profile._client import Timed
from edgekd.profile.board import Board
from edgekd.profile.device import Device
from edgekd.profile.hosts.agent import Agent, Arrays


class OnnxRuntime:
    package: str | None = "onnxruntime"
    turn: int | None = None

    def __init__(self, agent: Agent, board: Board, device: Device, started: dict[str, Any]) -> None:
        self._agent = agent

    def conditions(self) -> dict[str, Any]:
        return {}

    def add(self, id: str, model: OnnxModel, batch: int, cuda_graph: bool) -> tuple[str, dict[str, Any]]:
        settings = {"transfers": "none: inputs and outputs are in the processor's memory"}
        return self._agent.open(id, self._agent.put_model(model), optimised=True), settings

    def feed(self, id: str, batch: int, feeds: Arrays, files: dict[str, str]) -> None:
        self._agent.feed(id, batch, feeds, files)

    def infer(self, id: str, batch: int) -> Arrays:
        return self._agent.infer(id, batch)

    def time(self, id: str, batch: int, n: int, warmup: int) -> Timed:
        reply = self._agent.time(id, batch, n, warmup)
        return Timed(reply["ns"], reply["preempted"], {})

    def sustain(self, id: str, batch: int, seconds: float) -> tuple[int, tuple[float, float]]:
        """Run for `seconds`; how often it ran, and from when to when on the device's clock."""
        run_s = statistics.median(self._agent.time(id, batch, 3, 1)["ns"]) / 1e9
        n = max(1, round(seconds / run_s))
        reply = self._agent.time(id, batch, n, 1)
        return n, tuple(reply["span"])
