"""The measuring process, seen from the run that started it."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import Engine
from edgekd.errors import BackendError, TargetError
from edgekd.profile.devices import Device, usable_cores

COMMAND = (sys.executable, "-m", "edgekd.profile.worker")


class Timed(NamedTuple):
    """Durations in ns, how often the system took the cores away for another process meanwhile, and the parts."""

    ns: list[int]
    preempted: int
    phases: dict[str, list[int]]


class WorkerClient:
    """Starts `edgekd.profile.worker` pinned to `threads` cores; `conditions` is what it said about itself.

    Raises TargetError for more threads than cores; every method raises BackendError when the worker reports an
    error, dies, or does not answer within `timeout` seconds.
    """

    def __init__(self, device: Device, threads: int, timeout: float = 600, command: tuple[str, ...] = COMMAND) -> None:
        cores = len(usable_cores())
        if threads > cores:
            raise TargetError(
                f"profile.threads: {threads}, but only {cores} cores are usable here", "Set profile.threads lower."
            )
        self.device, self.timeout = device, timeout
        self._stderr = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.conditions = self._ask(op="start", threads=threads)
        except BaseException:
            self.close()
            raise

    def open(self, id: str, engine: Engine, cuda_graph: bool = False) -> tuple[str, dict[str, Any]]:
        """Load an engine under `id`; returns the provider that runs it, and the conditions it adds."""
        words = {"backend": self.device.backend, "engine": engine.to_json(), "cuda_graph": cuda_graph}
        reply = self._ask(op="open", id=id, **words)
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

    def close(self) -> None:
        """End the process; harmless when it has ended."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            try:
                stream.close()  # type: ignore[union-attr]
            except (BrokenPipeError, ValueError):
                pass  # what was still buffered had no reader any more

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            for line in stdout:
                self._lines.put(line)
        except ValueError:
            pass  # closed while reading: close() was called
        self._lines.put("")  # end of file

    def _ask(self, **request: Any) -> dict[str, Any]:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = self._lines.get(timeout=self.timeout)
        except BrokenPipeError:
            line = ""
        except queue.Empty:
            self._process.kill()
            raise BackendError(
                f"the measuring process did not answer `{request['op']}` within {self.timeout:g} s",
                "Lower profile.runs or profile.batches, or look for what else keeps the machine busy.",
            ) from None
        if not line:
            raise self._death(request["op"])
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise BackendError(*reply["error"])
        return reply

    def _death(self, op: str) -> BackendError:
        code = self._process.wait()
        self._stderr.seek(0)
        said = " | ".join(self._stderr.read().strip().splitlines()[-3:]) or "it said nothing"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return BackendError(
            f"the measuring process died during `{op}` ({how}): {said}",
            "`edgekd doctor` checks the runtime; signal 9 is usually a lack of memory: lower profile.batches.",
        )
