"""ONNX Runtime on NVIDIA GPUs: CUDA, TensorRT, and TensorRT-RTX as a plugin. None of them may leave work to the CPU."""

from __future__ import annotations

import time
from importlib import import_module
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
from edgekd.profile.backends._gpu import no_gpu
from edgekd.profile.backends._ort import PROFILE_WARMUP, layer_times, session_options, signature
from edgekd.profile.device import Device
from edgekd.profile.devices import device_identity
from edgekd.profile.latency_table import cache_directory

CUDA, TENSORRT, RTX = "CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"  # of the package onnxruntime-ep-nv-tensorrt-rtx-cu13
NO_CPU = "session.disable_cpu_ep_fallback"  # a session whose graph would partly run on the processor is refused
INSTALL = "pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]': one environment holds one of them."


class OrtGpuSession:
    """One `InferenceSession` on one provider; raises BackendError where a node of the graph would run elsewhere."""

    def __init__(self, path: str, threads: int, backend: OrtGpu, cuda_graph: bool, profile_to: Path | None) -> None:
        import onnxruntime

        self._name, self._ort, self._cuda_graph = Path(path).name, onnxruntime, cuda_graph
        options = session_options(threads, profile_to)
        options.add_session_config_entry(NO_CPU, "1")
        try:
            self._session: Any = backend.create(onnxruntime, path, options, cuda_graph)
        except BackendError:
            raise
        except Exception as error:  # ONNX Runtime raises a class of its own for every status code
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {self._name} on {backend.provider} alone: "
                f"{str(error).strip()[:500]}",
                "Integers run on TensorRT, not on CUDA: use --backend onnxruntime-tensorrt, or the FP32 or FP16 graph.",
            ) from None
        ran = self._session.get_providers()
        if not ran or ran[0] != backend.provider:
            raise BackendError(f"{self._name} would run on {', '.join(ran)}, not {backend.provider}", INSTALL)
        self._session.disable_fallback()  # else an error while running starts it again on the processor
        self._provider, self._bound = backend.provider, backend.bound
        self._binding: Any = None
        self._values: dict[str, Any] = {}
        self._results: dict[str, Any] = {}
        self.phases: Phases = {}

    @property
    def provider(self) -> str:
        return str(self._session.get_providers()[0])

    @property
    def settings(self) -> dict[str, Any]:
        how = "h2d and d2h apart" if self._bound else "not told apart"
        return {"transfers": f"inputs and outputs are copied, in the time; {how}", "cuda_graph": self._cuda_graph}

    @property
    def inputs(self) -> dict[str, tuple[np.dtype[Any], tuple[int | None, ...]]]:
        return signature(self._session)

    def infer(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        names = [item.name for item in self._session.get_outputs()]
        try:
            if not self._bound:
                return dict(zip(names, self._session.run(names, feeds), strict=True))
            self._bind(feeds)
            self._upload(feeds)
            self._compute()
            return {name: value.numpy() for name, value in self._results.items()}
        except Exception as error:
            shapes = {name: array.shape for name, array in feeds.items()}
            raise BackendError(
                f"ONNX Runtime failed on inputs {shapes} on {self._provider}: {str(error).strip()[:500]}",
                "Check that the images have the size the graph was exported with, and that the GPU has the memory.",
            ) from None

    def time(self, feeds: Feeds, n: int, warmup: int) -> list[int]:
        for _ in range(max(warmup, 3 if self._cuda_graph else 1)):  # two runs before the one that is recorded
            self.infer(feeds)
        clock, samples = time.perf_counter_ns, []
        if not self._bound:
            for _ in range(n):
                start = clock()
                self._session.run(None, feeds)
                samples.append(clock() - start)
            return samples
        phases: Phases = {"h2d": [], "compute": [], "d2h": []}
        results = list(self._results.values())
        for _ in range(n):
            start = clock()
            self._upload(feeds)
            there = clock()
            self._compute()
            done = clock()
            for value in results:
                value.numpy()
            end = clock()
            samples.append(end - start)
            phases["h2d"].append(there - start)
            phases["compute"].append(done - there)
            phases["d2h"].append(end - done)
        self.phases = phases
        return samples

    def _bind(self, feeds: Feeds) -> None:
        """Memory on the GPU for inputs of these shapes, and for the outputs of a first run, which keep their places."""
        if self._values and all(tuple(self._values[k].shape()) == v.shape for k, v in feeds.items()):
            return
        make = self._ort.OrtValue.ortvalue_from_shape_and_type
        self._values = {name: make(list(array.shape), array.dtype, "cuda", 0) for name, array in feeds.items()}
        names = [item.name for item in self._session.get_outputs()]
        if self._cuda_graph:  # it may not move later, so the shapes come from a session that records nothing
            shapes = self._output_shapes(feeds)
            self._results = {name: make(list(shape), dtype, "cuda", 0) for name, (shape, dtype) in shapes.items()}
        binding = self._session.io_binding()
        for name, value in self._values.items():
            binding.bind_ortvalue_input(name, value)
        for name in names:
            if self._cuda_graph:
                binding.bind_ortvalue_output(name, self._results[name])
            else:
                binding.bind_output(name, "cuda")
        self._binding = binding
        if not self._cuda_graph:
            self._upload(feeds)
            self._compute()
            self._results = dict(zip(names, binding.get_outputs(), strict=True))
            for name, value in self._results.items():
                binding.bind_ortvalue_output(name, value)

    def _output_shapes(self, feeds: Feeds) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Of outputs whose sides are the batch or fixed."""
        batch = next(iter(feeds.values())).shape[0]
        types = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}
        return {
            item.name: (
                tuple(side if isinstance(side, int) else batch for side in item.shape),
                np.dtype(types[item.type]),
            )
            for item in self._session.get_outputs()
        }

    def _upload(self, feeds: Feeds) -> None:
        for name, array in feeds.items():
            self._values[name].update_inplace(array)

    def _compute(self) -> None:
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def end_profiling(self) -> Path:
        return Path(self._session.end_profiling())

    def __enter__(self) -> OrtGpuSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._binding = self._session = None
        self._values, self._results = {}, {}


class OrtGpu:
    """What the three have in common: the engine is the ONNX file, which the provider turns into its own."""

    provider = CUDA
    bound = True  # memory on the GPU can be bound, and transfers told apart

    def unable(self, device: Device) -> tuple[str, str] | None:
        if (reason := no_gpu(device)) is not None:
            return reason
        if find_spec("onnxruntime") is None:
            return f"target {device.name}: ONNX Runtime is not installed", INSTALL
        import onnxruntime

        if self.provider not in onnxruntime.get_available_providers():
            return f"target {device.name}: ONNX Runtime {onnxruntime.__version__} has no {self.provider}", INSTALL
        return None

    def options(self, path: str, cuda_graph: bool) -> dict[str, str]:
        return {"device_id": "0", "enable_cuda_graph": str(int(cuda_graph))}

    def create(self, ort: Any, path: str, options: Any, cuda_graph: bool) -> Any:
        if self.provider not in ort.get_available_providers():
            raise BackendError(f"ONNX Runtime {ort.__version__} has no {self.provider}", INSTALL)
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # CUDA and cuDNN of NVIDIA's Python packages, which are on no search path
        return ort.InferenceSession(path, options, providers=[(self.provider, self.options(path, cuda_graph))])

    def build(self, onnx: OnnxModel, device: Device, batch: int = 1) -> Engine:
        identity = device_identity(device)
        return Engine(onnx.path, device.backend, identity, {"onnxruntime": identity["onnxruntime"]})

    def open(self, engine: Engine, threads: int, cuda_graph: bool = False) -> OrtGpuSession:
        return OrtGpuSession(engine.path, threads, self, cuda_graph, None)

    def layers(self, engine: Engine, feeds: Feeds, runs: int, threads: int) -> list[dict[str, Any]]:
        with TemporaryDirectory() as directory:
            with OrtGpuSession(engine.path, threads, self, False, Path(directory)) as session:
                session.time(feeds, runs, PROFILE_WARMUP)
                return layer_times(session.end_profiling(), runs)


class OrtCuda(OrtGpu):
    """Backend `onnxruntime-cuda`. It has no kernels for integers: a Q/DQ graph is refused."""


class OrtTensorRt(OrtGpu):
    """Backend `onnxruntime-tensorrt`: engines are built when a graph is opened, and kept in the cache directory."""

    provider = TENSORRT

    def options(self, path: str, cuda_graph: bool) -> dict[str, str]:
        from edgekd.export.tensorrt.graph import read_graph

        formats = read_graph(Path(path)).formats
        cache = cache_directory() / "onnxruntime-tensorrt"
        cache.mkdir(parents=True, exist_ok=True)
        return {
            "device_id": "0",
            # as trtexec is told: the rest of an INT8 graph may be FP16
            "trt_int8_enable": str(int("int8" in formats)),
            "trt_fp16_enable": str(int(bool(formats & {"int8", "fp16"}))),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache),
            "trt_cuda_graph_enable": str(int(cuda_graph)),
        }


class OrtTensorRtRtx(OrtGpu):
    """Backend `onnxruntime-tensorrt-rtx`: a plugin for any ONNX Runtime, which need not know CUDA itself."""

    provider = RTX
    bound = False

    def unable(self, device: Device) -> tuple[str, str] | None:
        if (reason := no_gpu(device)) is not None:
            return reason
        missing = [name for name in ("onnxruntime", PLUGIN) if find_spec(name) is None]
        if missing:
            return (
                f"target {device.name}: the Python package {missing[0]} is not installed",
                "pip install onnxruntime onnxruntime-ep-nv-tensorrt-rtx-cu13",
            )
        return None

    def options(self, path: str, cuda_graph: bool) -> dict[str, str]:
        return {"enable_cuda_graph": str(int(cuda_graph))}

    def create(self, ort: Any, path: str, options: Any, cuda_graph: bool) -> Any:
        try:
            plugin = import_module(PLUGIN)
        except ImportError as error:
            raise BackendError(
                f"the plugin {PLUGIN} does not load: {error}", "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13"
            ) from None
        if not any(device.ep_name == self.provider for device in ort.get_ep_devices()):
            ort.register_execution_provider_library(self.provider, plugin.get_library_path())
        devices = [device for device in ort.get_ep_devices() if device.ep_name == self.provider]
        if not devices:
            raise BackendError(f"{self.provider} finds no GPU it can use", "It takes sm_75 and later, but no Jetson.")
        options.add_provider_for_devices(devices[:1], self.options(path, cuda_graph))
        return ort.InferenceSession(path, options)
