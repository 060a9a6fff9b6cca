"""TensorRT by its Python package, and TensorRT-RTX by its own: engines built here or given, run on CUDA directly."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import Engine, OnnxModel
from edgekd.describe.engine import RUNTIMES, is_engine
from edgekd.describe.plan import read_header, require_loadable
from edgekd.errors import BackendError, ConfigError
from edgekd.profile import driver
from edgekd.profile.backends._base import Feeds, Phases
from edgekd.profile.backends._cuda import Cuda
from edgekd.profile.backends._gpu import no_gpu
from edgekd.profile.device import Device
from edgekd.profile.devices import device_identity
from edgekd.stage import fingerprint, write_json

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
PHASES = ("h2d", "compute", "d2h")
WARMUP = 5


class TensorRtSession:
    """An engine with inputs and outputs in page-locked memory. TensorRT 8.5 or later: tensors go by their names.

    The file's header is held against the runtime and the GPU first: TensorRT may end the process where they differ.
    """

    def __init__(self, path: Path, cuda_graph: bool = False, profiled: bool = False) -> None:
        header = read_header(path)
        found = driver.probe()
        if found is None or not found.compute_capabilities:
            raise BackendError(
                f"no NVIDIA GPU answers here to run {path.name}", "Run it on the device it was built for."
            )
        module = MODULES[header.runtime]
        trt = _import(module)
        require_loadable(path, header.runtime, _numbers(trt.__version__), found.compute_capabilities[0])
        self._name, self._trt, self._cuda_graph = path.name, trt, cuda_graph
        self.provider = f"{RUNTIMES[header.runtime]} {trt.__version__}"
        self.phases: Phases = {}
        self._cuda = Cuda()
        self._logger = trt.Logger(trt.Logger.WARNING)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise BackendError(
                f"{self.provider} refuses {path.name}; its log is above", "Build it again on this device."
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BackendError(f"{self.provider} has no memory to run {path.name}", "Use a smaller batch.")
        self.layer_ms: dict[str, list[float]] = {}
        self._profiler = _profiler(trt, self.layer_ms) if profiled else None  # TensorRT does not keep it alive
        if profiled:
            self._context.profiler = self._profiler
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self._outputs = [n for n in names if n not in self._inputs]
        self._types = {n: np.dtype(trt.nptype(self._engine.get_tensor_dtype(n))) for n in names}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._host: dict[str, NDArray[Any]] = {}
        self._device: dict[str, int] = {}
        self._replay: Any = None
        self._events = [self._cuda.event() for _ in range(len(PHASES) + 1)]

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "transfers": "inputs and outputs are copied from and to page-locked memory, in the time",
            "cuda_graph": self._cuda_graph,
        }

    @property
    def inputs(self) -> dict[str, tuple[np.dtype[Any], tuple[int | None, ...]]]:
        shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in self._inputs}
        return {
            name: (self._types[name], tuple(side if side >= 0 else None for side in shape))
            for name, shape in shapes.items()
        }

    def infer(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        self._place(feeds)
        self._upload()
        self._compute()
        self._download()
        self._cuda.wait()
        return {name: self._host[name].copy() for name in self._outputs}

    def time(self, feeds: Feeds, n: int, warmup: int) -> list[int]:
        for _ in range(warmup):
            self.infer(feeds)
        self._place(feeds)
        cuda, events, clock = self._cuda, self._events, time.perf_counter_ns
        steps = (self._upload, self._compute, self._download)
        samples: list[int] = []
        phases: Phases = {name: [] for name in PHASES}
        for _ in range(n):
            start = clock()
            cuda.record(events[0])
            for step, event in zip(steps, events[1:], strict=True):
                step()
                cuda.record(event)
            cuda.wait()
            samples.append(clock() - start)
            for name, first, second in zip(PHASES, events, events[1:], strict=False):
                phases[name].append(cuda.elapsed_ns(first, second))
        self.phases = phases
        return samples

    def _place(self, feeds: Feeds) -> None:
        """Memory for these shapes, the inputs in it, and a graph recorded where one is asked for."""
        missing = sorted(set(self._inputs) - set(feeds))
        if missing:
            raise BackendError(f"{self._name} wants {', '.join(missing)} too", "Give it every input.")
        shapes = {name: feeds[name].shape for name in self._inputs}
        if shapes != self._shapes:
            self._free()
            for name, shape in shapes.items():
                if not self._context.set_input_shape(name, shape):
                    raise BackendError(f"{self._name} takes no {name} of {shape}", "Build it for that batch: --batch.")
            for name in (*self._inputs, *self._outputs):
                shape = tuple(self._context.get_tensor_shape(name))
                self._host[name] = self._cuda.pinned(shape, self._types[name])
                self._device[name] = self._cuda.allocate(self._host[name].nbytes)
                self._context.set_tensor_address(name, self._device[name])
            self._shapes = shapes
            for name in self._inputs:
                self._host[name][...] = feeds[name]
            if self._cuda_graph:
                self._upload()
                self._execute()  # what it prepares in its first run cannot be recorded
                self._cuda.wait()
                self._replay = self._cuda.capture(self._execute)
        for name in self._inputs:
            self._host[name][...] = feeds[name]

    def _upload(self) -> None:
        for name in self._inputs:
            self._cuda.upload(self._device[name], self._host[name])

    def _download(self) -> None:
        for name in self._outputs:
            self._cuda.download(self._host[name], self._device[name])

    def _compute(self) -> None:
        if self._replay is not None:
            self._cuda.launch(self._replay)
        else:
            self._execute()

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream):
            raise BackendError(f"{self.provider} did not run {self._name}; its log is above", "Build it again here.")

    def _free(self) -> None:
        if self._replay is not None:
            self._cuda.drop(self._replay)
            self._replay = None
        for pointer in self._device.values():
            self._cuda.free(pointer)
        for array in self._host.values():
            self._cuda.unpin(array)
        self._device, self._host, self._shapes = {}, {}, {}

    def __enter__(self) -> TensorRtSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free()
        self._context = self._engine = self._runtime = None


class TensorRt:
    """Backend `tensorrt`: engines of whichever builder is here, kept by content, or one that is given."""

    builders: Sequence[str | None] = (None,)  # the first that can

    def unable(self, device: Device) -> tuple[str, str] | None:
        return no_gpu(device) or _no_package(device)

    def build(self, onnx: OnnxModel, device: Device, batch: int = 1) -> Engine:
        path = Path(onnx.path)
        if path.is_file() and is_engine(path):
            header = read_header(path)
            return Engine(str(path), device.backend, device_identity(device), {header.runtime: header.version})
        return build_cached(onnx, device, batch, self.builders[0])

    def open(self, engine: Engine, threads: int, cuda_graph: bool = False) -> TensorRtSession:
        return TensorRtSession(Path(engine.path), cuda_graph)

    def layers(self, engine: Engine, feeds: Feeds, runs: int, threads: int) -> list[dict[str, Any]]:
        with TensorRtSession(Path(engine.path), profiled=True) as session:
            for _ in range(WARMUP + runs):
                session.infer(feeds)
            return [
                {"name": name, "op": None, "provider": session.provider, "ms": statistics.median(times[-runs:])}
                for name, times in session.layer_ms.items()
            ]


def build_cached(onnx: OnnxModel, device: Device, batch: int, builder: str | None) -> Engine:
    """The engine of a graph for up to `batch` images a call, best at that many; built once and kept by its content.

    `<key>.engine.json` beside it has the inputs and the batch it is for. Raises TargetError where nothing here builds
    for `device`, BackendError with the builder's words where it refuses.
    """
    from edgekd.export import tensorrt
    from edgekd.profile.latency_table import cache_directory

    graph = tensorrt.read_graph(Path(onnx.path))
    dynamic = any(shape[:1] == (None,) for shape in graph.inputs.values())
    fixed = next((shape[0] for shape in graph.inputs.values()), None)
    if not dynamic and fixed != batch:
        raise ConfigError(f"--batch {batch}: the batch of {graph.path.name} is always {fixed}", f"Use --batch {fixed}.")
    batches = (1, batch, batch) if dynamic else None
    request = tensorrt.BuildRequest(graph=graph, compute_capability=device.sm_number, batch=batches)
    chosen = tensorrt.choose(device, builder)
    version = str(chosen.version())
    key = fingerprint([onnx.fingerprint(), device.fingerprint(), chosen.name, version, batches])[:32]
    engine = cache_directory() / "engines" / f"{key}.engine"
    if not engine.is_file():
        engine.parent.mkdir(parents=True, exist_ok=True)
        partial = engine.with_suffix(".partial")
        tensorrt.build(request, device, chosen, partial, engine.with_suffix(".log"))
        inputs = {name: list(shape) for name, shape in graph.inputs.items()}
        write_json(
            engine.with_name(f"{engine.name}.json"), {"inputs": inputs, "batch": batches, "builder": chosen.name}
        )
        partial.replace(engine)
    log = str(engine.with_suffix(".log"))
    return Engine(str(engine), device.backend, device_identity(device), {chosen.runtime: version}, log)


def read_beside(engine: Path) -> dict[str, Any]:
    """What `build_cached` has written beside an engine; empty for one from elsewhere."""
    file = engine.with_name(f"{engine.name}.json")
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return found


def _no_package(device: Device) -> tuple[str, str] | None:
    if any(find_spec(module) is not None for module in MODULES.values()):
        return None
    return (
        f"target {device.name}: no Python package of TensorRT is here to run its engines",
        "Install JetPack's, or pip install 'edgekd[gpu]'; --backend trtexec needs none.",
    )


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        package = {"tensorrt": "'edgekd[gpu]'", "tensorrt_rtx": "'edgekd[tensorrt-rtx]'"}[module]
        raise BackendError(
            f"the Python package {module} does not load: {error}", f"Install JetPack's, or pip install {package}."
        ) from None


def _numbers(version: str) -> str:
    """1.7.1.116 of "1.7.1.116", 10.3.0 of "10.3.0.post1"."""
    return ".".join(re.findall(r"\d+", version.partition("post")[0])[:4])


def _profiler(trt: Any, times: dict[str, list[float]]) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(ms)

    return Profiler()
