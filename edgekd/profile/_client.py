"""The measuring process, seen from the run that started it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import Engine
from edgekd.errors import TargetError
from edgekd.profile._process import JsonProcess
from edgekd.profile.device import Device
from edgekd.profile.machine import usable_cores

COMMAND = (sys.executable, "-m", "edgekd.profile.worker")


class Timed(NamedTuple):
    """Durations in ns, how often the system took the cores away for another process meanwhile, and the parts."""

    ns: list[int]
    preempted: int
    phases: dict[str, list[int]]


class WorkerClient(JsonProcess):
    """Starts `edgekd.profile.worker` pinned to `threads` cores; `conditions` is what it said about itself.

    Raises TargetError for more threads than cores; every method raises BackendError when the worker reports an
    error, dies, or does not answer within `timeout` seconds.
    """

    slow = "Lower profile.runs or profile.batches, or look for what else keeps the machine busy."

    def __init__(self, device: Device, threads: int, timeout: float = 600, command: tuple[str, ...] = COMMAND) -> None:
        cores = len(usable_cores())
        if threads > cores:
            raise TargetError(
                f"profile.threads: {threads}, but only {cores} cores are usable here", "Set profile.threads lower."
            )
        self.device = device
        pipe = subprocess.PIPE
        super().__init__(lambda stderr: subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr), timeout)
        try:
            self.conditions = self._ask(op="start", threads=threads)
        except BaseException:
            self.close()
            raise

    def open(self, id: str, engine: Engine, cuda_graph: bool = False) -> tuple[str, dict[str, Any]]:
        """Load an engine under `id`; returns the provider that runs it, and the conditions it adds."""
        backend = self.device.backend
        reply = self._ask(op="open", id=id, backend=backend, engine=engine.to_json(), cuda_graph=cuda_graph)
        return str(reply["provider"]), reply["settings"]

    def time(self, id: str, batch: int, n: int, warmup: int) -> Timed:
        reply = self._ask(op="time", id=id, batch=batch, n=n, warmup=warmup)
        return Timed(reply["ns"], reply["preempted"], reply["phases"])

    def inputs(self, id: str) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        """numpy's name of the type, and the shape, of every input."""
        return {name: (dtype, tuple(shape)) for name, dtype, shape in self._ask(op="inputs", id=id)["inputs"]}

    def infer(self, id: str, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output by name, of the session that is timed."""
        with tempfile.TemporaryDirectory(prefix="edgekd-") as directory:
            file = f"{directory}/arrays.npz"
            np.savez(file, **feeds)  # type: ignore[arg-type]  # its other arguments are none of ours
            self._ask(op="infer", id=id, file=file)
            with np.load(file) as arrays:
                return dict(arrays)

    def layers(self, id: str, batch: int, runs: int) -> list[dict[str, Any]]:
        """As `Backend.layers`, of the engine under `id`."""
        found: list[dict[str, Any]] = self._ask(op="layers", id=id, batch=batch, runs=runs)["layers"]
        return found

    def snapshot(self) -> dict[str, Any]:
        """`conditions.snapshot` of the measuring process, and `runtime_s`, spent inside the runtimes so far."""
        return self._ask(op="snapshot")

    def release(self, id: str) -> None:
        self._ask(op="close", id=id)
