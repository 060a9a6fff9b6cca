"""The contract of a runtime. A backend imports its runtime when it is used, never when it is listed."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import Engine, OnnxModel
from edgekd.profile.device import Device

Feeds = dict[str, NDArray[Any]]
Phases = dict[str, list[int]]


class Session(Protocol):
    """A loaded engine. Leaving the `with` block frees it."""

    @property
    def provider(self) -> str:
        """What the runtime says it runs on, for the report: asked of the session, not assumed."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Conditions that the runtime adds: `transfers` in words, `cuda_graph`, the `clock` where it is another."""
        ...

    @property
    def inputs(self) -> dict[str, tuple[np.dtype[Any], tuple[int | None, ...]]]:
        """Type and shape of every input by name; None is a dynamic dimension."""
        ...

    def infer(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Every output by name."""
        ...

    def time(self, feeds: Feeds, n: int, warmup: int) -> list[int]:
        """`n` durations in ns after `warmup` (at least one) untimed runs: host to host, what a caller waits for."""
        ...

    @property
    def phases(self) -> Phases:
        """ns a run of the last `time`: `h2d` (inputs to the device), `compute`, `d2h`; empty where nothing is moved."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Backend(Protocol):
    def unable(self, device: Device) -> tuple[str, str] | None:
        """Why it does not run on `device` here, and the way out; None where it can. Loads nothing heavy."""
        ...

    def build(self, onnx: OnnxModel, device: Device, batch: int = 1) -> Engine:
        """Turn a graph into what the runtime loads, on the device that will run it. Raises BackendError.

        It takes up to `batch` images a call, and is best at that many.
        """
        ...

    def open(self, engine: Engine, threads: int, cuda_graph: bool = False) -> Session:
        """Load an engine. Raises BackendError when it would run anywhere else than asked."""
        ...

    def layers(self, engine: Engine, feeds: Feeds, runs: int, threads: int) -> list[dict[str, Any]]:
        """{name, op, provider, ms} of every layer as the runtime executes it, ms the median of `runs`.

        Measured apart from everything else: the runtime's profiler costs time itself. Raises BackendError where the
        runtime has none.
        """
        ...
