"""ONNX Runtime on the processor, as it ships and as a reference for graphs of other runtimes."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import Engine, OnnxModel
from edgekd.errors import BackendError
from edgekd.profile.backends._base import Feeds, Phases
from edgekd.profile.backends._ort import PROFILE_WARMUP, layer_times, session_options, signature
from edgekd.profile.device import Device
from edgekd.profile.devices import device_identity

PROVIDER = "CPUExecutionProvider"


class OrtCpuSession:
    """One `InferenceSession` of `threads` threads (inter-op 1, spinning as ONNX Runtime ships it).

    Not `optimised`, it computes what the graph says, operator by operator.
    """

    settings: dict[str, Any] = {"transfers": "none: inputs and outputs are in the processor's memory"}
    phases: Phases = {}

    def __init__(self, path: str, threads: int, optimised: bool = True, profile_to: Path | None = None) -> None:
        import onnxruntime

        options = session_options(threads, profile_to)
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session: Any = onnxruntime.InferenceSession(path, options, providers=[PROVIDER])
        except Exception as error:  # ONNX Runtime raises a class of its own for every status code
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {Path(path).name}: {str(error).strip()[:500]}",
                "Export the graph again, or lower --set export.opset.",
            ) from None
        ran = self._session.get_providers()
        if ran != [PROVIDER]:
            raise BackendError(f"{Path(path).name} would run on {ran}, not {PROVIDER}", "Reinstall onnxruntime.")

    @property
    def provider(self) -> str:
        return ", ".join(self._session.get_providers())

    @property
    def inputs(self) -> dict[str, tuple[np.dtype[Any], tuple[int | None, ...]]]:
        return signature(self._session)

    def infer(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        names = [item.name for item in self._session.get_outputs()]
        try:
            return dict(zip(names, self._session.run(names, feeds), strict=True))
        except Exception as error:
            shapes = {name: array.shape for name, array in feeds.items()}
            raise BackendError(
                f"ONNX Runtime failed on inputs {shapes}: {str(error).strip()[:500]}",
                "Check that the images have the size the graph was exported with.",
            ) from None

    def time(self, feeds: Feeds, n: int, warmup: int) -> list[int]:
        self.infer(feeds)  # the first warm-up run has the error handling; then nothing but the call is on the clock
        run, clock = self._session.run, time.perf_counter_ns
        for _ in range(warmup - 1):
            run(None, feeds)
        samples = []
        for _ in range(n):
            start = clock()
            run(None, feeds)
            samples.append(clock() - start)
        return samples

    def end_profiling(self) -> Path:
        """The file that a session which was told to profile has written."""
        return Path(self._session.end_profiling())

    def __enter__(self) -> OrtCpuSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None


class OrtCpu:
    """Backend `onnxruntime-cpu`: the engine is the ONNX file itself, optimised when it is opened."""

    def unable(self, device: Device) -> tuple[str, str] | None:
        if find_spec("onnxruntime") is None:
            return f"target {device.name}: ONNX Runtime is not installed", "pip install onnxruntime"
        return None

    def build(self, onnx: OnnxModel, device: Device, batch: int = 1) -> Engine:
        identity = device_identity(device)
        return Engine(onnx.path, device.backend, identity, {"onnxruntime": identity["onnxruntime"]})

    def open(self, engine: Engine, threads: int, cuda_graph: bool = False) -> OrtCpuSession:
        return OrtCpuSession(engine.path, threads)

    def layers(self, engine: Engine, feeds: Feeds, runs: int, threads: int) -> list[dict[str, Any]]:
        with TemporaryDirectory() as directory:
            with OrtCpuSession(engine.path, threads, profile_to=Path(directory)) as session:
                session.time(feeds, runs, PROFILE_WARMUP)
                return layer_times(session.end_profiling(), runs)


class OrtReference(OrtCpu):
    """Backend `onnxruntime-reference`: the accuracy of a graph whose own runtime is not here.

    Not optimised: for int8 activations ONNX Runtime's fused kernels saturate on processors without VNNI, which the
    runtime that the graph is for does not.
    """

    def open(self, engine: Engine, threads: int, cuda_graph: bool = False) -> OrtCpuSession:
        return OrtCpuSession(engine.path, threads, optimised=False)
