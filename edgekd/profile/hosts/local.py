"""This machine: the worker is a process beside the run."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from edgekd.artifacts import OnnxModel
from edgekd.catalog import BACKENDS, find
from edgekd.profile._client import WorkerClient
from edgekd.profile.backends._base import Backend
from edgekd.profile.device import Device
from edgekd.profile.machine import usable_cores


class LocalWorker(WorkerClient):
    turn = None  # the backend's own

    @property
    def spare(self) -> int:
        return len(usable_cores()) - int(self.conditions["threads"])

    def add(self, id: str, model: OnnxModel, batch: int, cuda_graph: bool = False) -> tuple[str, dict[str, Any]]:
        backend: Backend = find(BACKENDS, "device.backend", self.device.backend).load()()
        return self.open(id, backend.build(model, self.device, batch), cuda_graph)

    def watch(self) -> None: ...

    def watched(self) -> dict[str, Any]:
        return {}

    def energy(self, id: str, batch: int) -> dict[str, Any]:
        return {}


class Local:
    def worker(self, device: Device, threads: int) -> LocalWorker:
        return LocalWorker(device, threads)

    def __enter__(self) -> Local:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
