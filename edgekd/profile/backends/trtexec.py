"""trtexec as a backend: it times engines where no Python package of TensorRT is, with its own clock and its own inputs.

Files and flags as in samples/common of NVIDIA/TensorRT: --exportTimes is a list with `latencyMs`, `h2dMs`, `computeMs`
and `d2hMs` of every run after the warm-up; --exportProfile a list whose first entry is the count, then `name`,
`averageMs` and, in later versions, `medianMs` of every layer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import Engine, OnnxModel
from edgekd.describe.plan import read_header, require_loadable
from edgekd.errors import BackendError
from edgekd.export.tensorrt import BUILDERS, BuildRequest, OnnxGraph
from edgekd.export.tensorrt.log import last_lines
from edgekd.export.tensorrt.trtexec import found_program, timing_arguments
from edgekd.profile import driver
from edgekd.profile.backends._base import Feeds, Phases
from edgekd.profile.backends._gpu import no_gpu
from edgekd.profile.backends.tensorrt import TensorRt, read_beside
from edgekd.profile.device import Device

PATIENCE_S = 600
WARMUP_MS = 200
KEYS = {"h2d": "h2dMs", "compute": "computeMs", "d2h": "d2hMs"}


class TrtexecSession:
    """An engine that a new trtexec loads for every call of `time`; it gives no outputs, so there is no `infer`."""

    def __init__(self, path: Path, cuda_graph: bool) -> None:
        self._program, self._version = found_program()
        found = driver.probe()
        if found is None or not found.compute_capabilities:
            raise BackendError(
                f"no NVIDIA GPU answers here to run {path.name}", "Run it on the device it was built for."
            )
        version = ".".join(map(str, self._version))
        require_loadable(path, "tensorrt", version, found.compute_capabilities[0])
        self._path, self._cuda_graph = path, cuda_graph
        beside = read_beside(path)
        self._shapes = {name: tuple(shape) for name, shape in beside.get("inputs", {}).items()}
        self._dynamic = beside.get("batch") is not None
        self._sm = found.compute_capabilities[0]
        self.provider = f"trtexec, TensorRT {version}"
        self.phases: Phases = {}

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "transfers": "inputs and outputs are copied, in the time; h2d and d2h apart",
            "cuda_graph": self._cuda_graph,
            "clock": "trtexec's CUDA events, from the first input's copy to the last output's",
            "inputs": "random, made by trtexec",
            "spin_wait": True,
        }

    @property
    def inputs(self) -> dict[str, tuple[np.dtype[Any], tuple[int | None, ...]]]:
        return {name: (np.dtype(np.float32), shape) for name, shape in self._shapes.items()}

    def infer(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        raise BackendError(
            "trtexec gives no outputs to count top-1 from", "Leave out --data, or use --backend tensorrt."
        )

    def time(self, feeds: Feeds, n: int, warmup: int) -> list[int]:
        with TemporaryDirectory() as directory:
            file = Path(directory) / "times.json"
            self._run([*self._arguments(feeds, file), f"--iterations={n}"], file)
            runs = json.loads(file.read_text())[-n:]
        if len(runs) < n:
            raise BackendError(f"trtexec timed {len(runs)} runs of {n}", "This is a bug in edgekd: please report it.")
        self.phases = {name: [_ns(run[key]) for run in runs] for name, key in KEYS.items()}
        return [_ns(run["latencyMs"]) for run in runs]

    def layer_times(self, feeds: Feeds, runs: int) -> list[dict[str, Any]]:
        with TemporaryDirectory() as directory:
            file = Path(directory) / "profile.json"
            apart = [] if self._version >= (11,) else ["--separateProfileRun"]  # 11 always does
            words = [*self._arguments(feeds, None), f"--iterations={runs}", *apart, f"--exportProfile={file}"]
            self._run(words, file)
            entries = json.loads(file.read_text())
        return [
            {"name": e["name"], "op": None, "provider": self.provider, "ms": e.get("medianMs", e.get("averageMs"))}
            for e in entries
            if "name" in e
        ]

    def _arguments(self, feeds: Feeds, times: Path | None) -> list[str]:
        """As every TensorRT understands them; the duration of 0 s leaves it to --iterations."""
        batch = next(iter(feeds.values())).shape[0] if feeds else 1
        graph = OnnxGraph(self._path, 0, self._shapes, frozenset())
        request = BuildRequest(
            graph=graph, compute_capability=self._sm, batch=(1, batch, batch) if self._dynamic else None
        )
        return timing_arguments(
            self._version,
            request,
            self._path,
            batch=batch,
            cuda_graph=self._cuda_graph,
            seconds=0,
            warmup_ms=WARMUP_MS,
            times=times,
        )

    def _run(self, arguments: Sequence[str], file: Path) -> None:
        try:
            done = subprocess.run([self._program, *arguments], capture_output=True, text=True, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise BackendError(f"trtexec was not done after {PATIENCE_S} s", "Lower --runs or --batch.") from None
        if done.returncode != 0 or not file.is_file():
            raise BackendError(
                f"{self.provider} failed on {self._path.name}: {last_lines(done.stdout + done.stderr)}",
                "Build the engine again on this device; a smaller --batch takes less memory.",
            )
        print(done.stdout[-2000:], file=sys.stderr)

    def __enter__(self) -> TrtexecSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Trtexec(TensorRt):
    """Backend `trtexec`: builds and times with the program alone."""

    builders = ("trtexec",)

    def unable(self, device: Device) -> tuple[str, str] | None:
        reason = no_gpu(device)
        if reason is None and BUILDERS["trtexec"].version() is None:
            why = BUILDERS["trtexec"].unable(device)
            reason = f"target {device.name}: trtexec: {why}", "Install TensorRT, or add its bin directory to PATH."
        return reason

    def build(self, onnx: OnnxModel, device: Device, batch: int = 1) -> Engine:
        engine = super().build(onnx, device, batch)
        header = read_header(Path(engine.path))
        if header.runtime != "tensorrt":
            raise BackendError(f"{onnx.artifact} is an engine of {header.runtime}", "Use --backend tensorrt.")
        return engine

    def open(self, engine: Engine, threads: int, cuda_graph: bool = False) -> TrtexecSession:  # type: ignore[override]
        return TrtexecSession(Path(engine.path), cuda_graph)

    def layers(self, engine: Engine, feeds: Feeds, runs: int, threads: int) -> list[dict[str, Any]]:
        return TrtexecSession(Path(engine.path), cuda_graph=False).layer_times(feeds, runs)


def _ns(milliseconds: float) -> int:
    return round(1e6 * milliseconds)
