"""The measuring process, seen from the run that started it."""

from __future__ import annotations

import subprocess
import sys

from edgekd.artifacts import Engine
from edgekd.errors import TargetError
from edgekd.profile._process import JsonProcess
from edgekd.profile.devices import Device, usable_cores

COMMAND = (sys.executable, "-m", "edgekd.profile.worker")


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

    def open(self, id: str, engine: Engine) -> str:
        """Load an engine under `id`; returns the provider that runs it."""
        reply = self._ask(op="open", id=id, backend=self.device.backend, engine=engine.to_json())
        return str(reply["provider"])

    def time(self, id: str, batch: int, n: int, warmup: int) -> tuple[list[int], int]:
        """`n` durations in ns, and how often the system took the cores away for another process meanwhile."""
        reply = self._ask(op="time", id=id, batch=batch, n=n, warmup=warmup)
        return reply["ns"], reply["preempted"]

    def release(self, id: str) -> None:
        self._ask(op="close", id=id)
