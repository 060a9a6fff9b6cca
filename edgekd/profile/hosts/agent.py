"""The agent on a device, seen from here: its operations, and a worker made of them."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import OnnxModel
from edgekd.errors import BackendError, DeviceBusyError, DiskFullError, EdgekdError, RuntimeMissingError, TargetError
from edgekd.profile import board as boards
from edgekd.profile._process import JsonProcess
from edgekd.profile.hosts._base import Remote
from edgekd.profile.hosts.address import Address
from edgekd.stage import digest_file, fingerprint

# Its source is read from standard input: nothing of it lies on the device.
_BOOT = "import sys; i = sys.stdin.buffer; exec(compile(i.read(int(i.readline())), 'agent.py', 'exec'))"
_SOURCE = files("edgekd.profile") / "agent" / "agent.py"
_PART = 4 << 20  # bytes of a file in one request

_KINDS: dict[str, type[EdgekdError]] = {
    "busy": DeviceBusyError,
    "disk": DiskFullError,
    "runtime": RuntimeMissingError,
    "threads": TargetError,
}

Lines = list[tuple[float, str]]
Arrays = dict[str, NDArray[Any]]


class Agent(JsonProcess):
    """An agent at `remote`. Nothing is locked, written or changed there before `start`."""

    slow = "Look for what keeps the device busy."

    def __init__(self, remote: Remote, address: Address, timeout: float = 120) -> None:
        self._remote = remote
        command = [address.python, "-u", "-c", _BOOT, address.cache, address.simulated]
        super().__init__(lambda stderr: remote.spawn(command, stderr), timeout)
        source = _SOURCE.read_bytes()
        stdin = self._process.stdin
        assert stdin is not None
        try:
            try:
                stdin.write(b"%d\n%s" % (len(source), source))
            except BrokenPipeError:
                pass  # the first question finds out why
            self.machine = self._ask(op="machine")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let it clean up, which it does when its input ends, then end the connection."""
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            with suppress(OSError):
                stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(40)  # putting clocks back takes some seconds
        super().close()

    def start(self, threads: int, runtime: str | None) -> dict[str, Any]:
        """Lock the device and pin the agent to `threads` cores; returns what it says of itself."""
        return self._ask(op="start", threads=threads, runtime=runtime)

    def read(self, patterns: Sequence[str]) -> Mapping[str, str]:
        texts: dict[str, str] = self._ask(op="read", patterns=list(patterns))["texts"]
        return texts

    def run(self, command: Sequence[str], timeout: float = 60) -> tuple[int | None, Lines]:
        """A program's exit code, None where there is none such, and its lines with the time they came at."""
        reply = self._ask(op="run", command=list(command), seconds=timeout, timeout=timeout + 30)
        return reply["code"], [(at, line) for at, line in reply["lines"]]

    def said(self, command: Sequence[str]) -> tuple[int | None, str]:
        code, lines = self.run(command)
        return code, "\n".join(line for _, line in lines)

    def watch(self, command: Sequence[str]) -> bool:
        """Start a program beside; False where there is none such."""
        return bool(self._ask(op="watch", command=list(command))["there"])

    def watched(self) -> Lines:
        return [(at, line) for at, line in self._ask(op="watched")["lines"]]

    def undo(self, command: Sequence[str]) -> None:
        """A command that the agent runs when it ends, however it ends."""
        self._ask(op="undo", command=list(command))

    def put(self, file: Path, key: str | None = None, name: str | None = None) -> str:
        """The path there of a copy of `file`: in the cache under `key`, or until the agent ends."""
        with file.open("rb") as source:
            size = file.stat().st_size
            digest = digest_file(file)
            reply = self._ask(op="put", name=name or file.name, size=size, sha256=digest, key=key)
            while not reply["have"] and (part := source.read(_PART)):
                self._ask(payload=part, op="write")
        return str(reply["path"])

    def put_model(self, model: OnnxModel) -> str:
        """The path there of a graph, with its tensors beside it, in the cache by their content."""
        path = Path(model.path)
        beside = [file for file in (Path(f"{model.path}.data"),) if file.is_file()]
        key = fingerprint({file.name: digest_file(file) for file in (path, *beside)})
        for file in beside:
            self.put(file, key)
        return self.put(path, key)

    def find(self, key: str, name: str) -> str | None:
        """The path of a file of the cache; None where it is not there."""
        path: str | None = self._ask(op="find", key=key, name=name)["path"]
        return path

    def keep(self, source: str, key: str, name: str) -> str:
        return str(self._ask(op="keep", source=source, key=key, name=name)["path"])

    def result(self, name: str) -> str:
        """The text that a program has written into the scratch directory."""
        return str(self._ask(op="result", name=name)["text"])

    def open(self, id: str, path: str, optimised: bool) -> str:
        return str(self._ask(op="open", id=id, path=path, optimised=optimised)["provider"])

    def feed(self, id: str, batch: int, feeds: Arrays, files: Mapping[str, str]) -> None:
        """The inputs that `infer` and `time` use; `files` are their bytes, by input, as they were put."""
        tensors = [
            {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "file": files[name]}
            for name, array in feeds.items()
        ]
        self._ask(op="feed", id=id, batch=batch, tensors=tensors)

    def infer(self, id: str, batch: int) -> Arrays:
        found = self._ask(op="infer", id=id, batch=batch)["outputs"]
        return {
            row["name"]: np.frombuffer(base64.b64decode(row["base64"]), row["dtype"]).reshape(row["shape"])
            for row in found
        }

    def time(self, id: str, batch: int, n: int, warmup: int) -> dict[str, Any]:
        return self._ask(op="time", id=id, batch=batch, n=n, warmup=warmup, timeout=600)

    def now(self) -> dict[str, Any]:
        """`machine` again: the time `at` in s, load averages, free disk."""
        return self._ask(op="machine")

    def _error(self, reply: dict[str, Any]) -> EdgekdError:
        what, fix = reply["error"]
        return _KINDS.get(reply["kind"], BackendError)(f"{self._remote.where}: {what}", fix)

    def _death(self, op: str) -> EdgekdError:
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:  # a connection to nothing
            self._process.kill()
            code = self._process.wait()
        return self._remote.explain(code, self._said(), op)


def probe(agent: Agent) -> boards.Board:
    return boards.probe(agent.read, agent.said)
