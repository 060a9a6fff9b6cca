"""A worker on a device that an agent serves: what is measured there is checked against this machine first."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import OnnxModel
from edgekd.errors import BackendError, ParityError, TargetError
from edgekd.profile import board as boards
from edgekd.profile._client import Timed
from edgekd.profile.backends.ort_cpu import OrtCpuSession
from edgekd.profile.device import Device
from edgekd.profile.hosts._base import Remote
from edgekd.profile.hosts.address import Address
from edgekd.profile.hosts.agent import Agent, Arrays, probe
from edgekd.profile.hosts.onnxruntime import OnnxRuntime
from edgekd.profile.hosts.power import Power
from edgekd.profile.worker import random_feeds

SIMULATED = "the device's programs replay recorded words, and time nothing"
ENERGY_S = 3.0  # of runs whose power is measured
TOLERANCE = 1e-3  # of the largest output: FP32 by another processor's kernels
COSINE = 0.99  # of everything else: rounding falls differently in another runtime's kernels


class Runtime(Protocol):
    """What runs graphs on the device, through the agent. `package` is the Python package it needs there."""

    package: str | None
    turn: int | None

    def __init__(self, agent: Agent, board: boards.Board, device: Device, started: dict[str, Any]) -> None: ...

    def conditions(self) -> dict[str, Any]: ...

    def add(self, id: str, model: OnnxModel, batch: int, cuda_graph: bool) -> tuple[str, dict[str, Any]]: ...

    def feed(self, id: str, batch: int, feeds: Arrays, files: dict[str, str]) -> None: ...

    def infer(self, id: str, batch: int) -> Arrays: ...

    def time(self, id: str, batch: int, n: int, warmup: int) -> Timed: ...

    def sustain(self, id: str, batch: int, seconds: float) -> tuple[int, tuple[float, float]]: ...


class RemoteWorker:
    """The only agent that measures at `remote`, pinned to `threads` cores there; see `hosts._base.Worker`.

    Raises DeviceBusyError where there is another, RuntimeMissingError without Python, numpy or the runtime,
    TargetError where the machine is not `device`, and HostError for the connection.
    """

    def __init__(self, remote: Remote, address: Address, device: Device, threads: int) -> None:
        self.device, self._agent = device, Agent(remote, address)
        try:
            self._board = probe(self._agent)
            notes = boards.check(self._board, device, remote.where)
            runtime = _runtime(device)
            started = self._agent.start(threads, runtime.package)
            self._power = Power(self._agent, self._board)
            if address.set_power_mode is not None:
                self._power.set_mode(address.set_power_mode)
            if address.lock_clocks:
                self._power.lock_clocks(started["scratch"])
            if address.set_power_mode is not None or address.lock_clocks:
                self._board = probe(self._agent)
                notes = boards.check(self._board, device, remote.where)
            self._runtime = runtime(self._agent, self._board, device, started)
        except BaseException:
            self._agent.close()
            raise
        machine = self._agent.machine
        self._notes = notes
        self._watching = False
        self._inputs: dict[str, dict[str, tuple[str, tuple[int | None, ...]]]] = {}
        self._runtime_s = 0.0
        self.conditions: dict[str, Any] = {
            "process": "own, on the device",
            "host": remote.where,
            **({"simulated": SIMULATED} if machine["simulated"] else {}),
            "threads": threads,
            "cores": started["cores"],
            "cpu": self._board.cpu,
            "isa": list(self._board.isa),
            "machine": machine["system"],
            "board": self._board.summary(),
            "governor": self._governor(started["cores"][0]),
            "versions": started["versions"],
            "clock": started["clock"],
            "inputs": "random normal, seed 0, made before timing",
            "busy_cores_before": None,
            **self._runtime.conditions(),
        }

    @property
    def spare(self) -> int:
        return int(self._agent.machine["cores"]) - int(self.conditions["threads"])

    @property
    def turn(self) -> int | None:
        return self._runtime.turn

    def add(self, id: str, model: OnnxModel, batch: int, cuda_graph: bool = False) -> tuple[str, dict[str, Any]]:
        """Upload, build and load a graph, and compare its outputs with those of ONNX Runtime here.

        Raises ParityError where they differ by more than the precision explains: then nothing is timed.
        """
        provider, settings = self._runtime.add(id, model, batch, cuda_graph)
        # a graph for another runtime is run as it is written: fused int8 kernels may saturate
        with OrtCpuSession(model.path, threads=1, optimised=self.device.backend == "onnxruntime-cpu") as session:
            self._inputs[id] = {name: (dtype.name, shape) for name, (dtype, shape) in session.inputs.items()}
            feeds = random_feeds(session, batch)
            expected = session.infer(feeds)
        self._feed(id, batch, feeds)
        return provider, {**settings, "outputs": _agreement(model, self._runtime.infer(id, batch), expected)}

    def time(self, id: str, batch: int, n: int, warmup: int) -> Timed:
        started = time.perf_counter()
        timed = self._runtime.time(id, batch, n, warmup)
        self._runtime_s += time.perf_counter() - started
        return timed

    def inputs(self, id: str) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        return self._inputs[id]

    def infer(self, id: str, feeds: Arrays) -> Arrays:
        batch = len(next(iter(feeds.values())))
        self._feed(id, batch, feeds)
        return self._runtime.infer(id, batch)

    def layers(self, id: str, batch: int, runs: int) -> list[dict[str, Any]]:
        raise BackendError("over SSH there are no times of layers", "Leave out --per-layer.")

    def snapshot(self) -> dict[str, Any]:
        """As `conditions.snapshot`, of the device; what other processes did there is not known."""
        machine = self._agent.now()
        zones = self._agent.read(["/sys/class/thermal/thermal_zone*/temp"]).values()
        degrees = [int(text) / 1e3 for text in zones if text.strip().lstrip("-").isdigit()]
        return {
            "at": machine["at"],
            "own_s": 0.0,
            "busy_s": None,
            "stolen_s": None,
            "load": [round(value, 2) for value in machine["load"]],
            "clock_mhz": None,
            "temperature_c": max((value for value in degrees if value > -200), default=None),
            "gpu": None,
            "runtime_s": self._runtime_s,
        }

    def _feed(self, id: str, batch: int, feeds: Arrays) -> None:
        with tempfile.TemporaryDirectory(prefix="edgekd-") as directory:
            files = {}
            for i, (name, array) in enumerate(feeds.items()):
                file = Path(directory) / f"input-{id}-{batch}-{i}"
                file.write_bytes(np.ascontiguousarray(array).tobytes())
                self._agent.put(file)
                files[name] = file.name
        self._runtime.feed(id, batch, feeds, files)

    def watch(self) -> None:
        self._watching = self._power.watch()

    def watched(self) -> dict[str, Any]:
        seen = self._power.watched()
        return {**seen, "warnings": [*self._notes, *seen["warnings"]]}

    def energy(self, id: str, batch: int) -> dict[str, Any]:
        if not self._watching:
            return {}
        self._agent.watch(["tegrastats", "--interval", "100"])
        runs, span = self._runtime.sustain(id, batch, ENERGY_S)
        return self._power.energy(self._agent.watched(), span, runs, batch)

    def _governor(self, core: int) -> str | None:
        texts = self._agent.read([f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"])
        return next((text.strip() for text in texts.values()), None)

    def __enter__(self) -> RemoteWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._agent.close()


def _agreement(model: OnnxModel, found: Arrays, expected: Arrays) -> dict[str, Any]:
    """How far the device's outputs are from the reference's, of the output that is furthest. Raises ParityError."""
    if set(found) != set(expected):
        raise ParityError(
            f"{Path(model.path).name} gives {', '.join(found)} on the device and {', '.join(expected)} here",
            "Export the graph again.",
        )
    records = {name: _compare(found[name], array) for name, array in expected.items()}
    name, worst = min(records.items(), key=lambda item: item[1]["cosine"])
    exact = model.precision == "fp32" and worst["max_rel_error"] <= TOLERANCE
    if not (exact or worst["cosine"] >= COSINE):
        raise ParityError(
            f"{Path(model.path).name} does not compute on the device what it computes here: the cosine of {name} is "
            f"{worst['cosine']:.4f}, below {COSINE}",
            "Nothing was timed. Build the engine again, or export with another opset.",
        )
    return {"reference": "ONNX Runtime on the host, on the inputs that are timed", **worst}


def _compare(found: NDArray[Any], expected: NDArray[Any]) -> dict[str, float]:
    """Errors, also relative to the largest value expected, and the cosine over all values at once."""
    a, b = np.asarray(found, np.float64).ravel(), np.asarray(expected, np.float64).ravel()
    if a.shape != b.shape or not np.isfinite(a).all():
        return {"max_abs_error": float("inf"), "max_rel_error": float("inf"), "cosine": 0.0}
    error, norms = float(np.abs(a - b).max()), float(np.linalg.norm(a) * np.linalg.norm(b))
    return {
        "max_abs_error": error,
        "max_rel_error": error / max(float(np.abs(b).max()), 1e-12),
        "cosine": min(1.0, float(a @ b) / norms) if norms else float((a == b).all()),
    }


def _runtime(device: Device) -> type[Runtime]:
    if device.backend in ("tensorrt", "trtexec"):
        from edgekd.profile.hosts.trtexec import Trtexec  # it needs torch, through the builders

        return Trtexec
    if device.backend != "onnxruntime-cpu":
        raise TargetError(
            f"--backend {device.backend}: over SSH there are onnxruntime-cpu and tensorrt", "Choose one, or neither."
        )
    return OnnxRuntime
