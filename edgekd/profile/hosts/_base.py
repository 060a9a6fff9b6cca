"""The contract of a machine that measures."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any, Protocol

from numpy.typing import NDArray

from edgekd.artifacts import OnnxModel
from edgekd.errors import EdgekdError
from edgekd.profile._client import Timed
from edgekd.profile.device import Device


class Worker(Protocol):
    """A process on the machine, the only one of its kind there. Leaving the `with` block ends it."""

    device: Device
    conditions: dict[str, Any]  # that stay for all it measures

    @property
    def spare(self) -> int:
        """Cores of the machine beside those that it measures with."""
        ...

    @property
    def turn(self) -> int | None:
        """Runs of one model before the next has its turn, where a turn costs time of its own."""
        ...

    def add(self, id: str, model: OnnxModel, batch: int, cuda_graph: bool = False) -> tuple[str, dict[str, Any]]:
        """Build an engine there and load it under `id`: the provider that runs it, and the conditions it adds."""
        ...

    def time(self, id: str, batch: int, n: int, warmup: int) -> Timed:
        """`n` runs after `warmup` untimed ones."""
        ...

    def inputs(self, id: str) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        """numpy's name of the type, and the shape, of every input."""
        ...

    def infer(self, id: str, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output by name, of the session that is timed."""
        ...

    def layers(self, id: str, batch: int, runs: int) -> list[dict[str, Any]]:
        """As `Backend.layers`. Raises BackendError where the machine does not tell."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """`conditions.snapshot` of the machine, and `runtime_s`, spent inside the runtimes so far."""
        ...

    def watch(self) -> None:
        """Sample temperatures, clocks and power from now on, where the machine tells them."""
        ...

    def watched(self) -> dict[str, Any]:
        """What was seen since `watch`, as conditions; `warnings` among them."""
        ...

    def energy(self, id: str, batch: int) -> dict[str, Any]:
        """Energy of an image as a condition, from runs of their own; empty where the machine does not tell it."""
        ...

    def __enter__(self) -> Worker: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Host(Protocol):
    """A machine. Leaving the `with` block ends the connection to it."""

    def worker(self, device: Device, threads: int) -> Worker:
        """Start measuring there, pinned to `threads` cores."""
        ...

    def __enter__(self) -> Host: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Remote(Protocol):
    """Where an agent can be started."""

    where: str  # for people

    def spawn(self, command: Sequence[str], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a program there, with pipes to it."""
        ...

    def explain(self, code: int, said: Sequence[str], op: str) -> EdgekdError:
        """What it means that the program ended with `code` during `op`, having said this on standard error."""
        ...
