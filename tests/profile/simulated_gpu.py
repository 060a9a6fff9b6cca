"""A GPU where there is none: the CUDA driver, TensorRT's Python package and ONNX Runtime with CUDA, all simulated."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

SIDE = 4  # the simulated engine takes images [B, 3, 4, 4] and gives their sums [B, 1]


class SimulatedCuda:
    """libcuda whose device memory is the host's; what is put on the stream runs at once, or is recorded."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.recorded: list[Callable[[], None]] | None = None
        self.graphs: list[list[Callable[[], None]]] = []
        self.launched = 0
        self.events: dict[int, float] = {}

    def put(self, work: Callable[[], None]) -> None:
        if self.recorded is None:
            work()
        else:
            self.recorded.append(work)

    def _allocate(self, pointer: Any, size: Any) -> int:
        buffer = (ctypes.c_uint8 * size.value)()
        pointer._obj.value = ctypes.addressof(buffer)
        self.memory[ctypes.addressof(buffer)] = buffer
        return 0

    cuMemAlloc_v2 = cuMemAllocHost_v2 = _allocate

    def _free(self, pointer: Any) -> int:
        del self.memory[pointer.value]
        return 0

    cuMemFree_v2 = cuMemFreeHost = _free

    def _copy(self, target: Any, source: Any, size: Any, stream: Any) -> int:
        self.put(lambda: ctypes.memmove(target.value, source.value, size.value) and None)
        return 0

    cuMemcpyHtoDAsync_v2 = cuMemcpyDtoHAsync_v2 = _copy

    def cuEventCreate(self, event: Any, flags: int) -> int:
        event._obj.value = len(self.events) + 1
        self.events[event._obj.value] = 0.0
        return 0

    def cuEventRecord(self, event: Any, stream: Any) -> int:
        self.events[event.value] = time.perf_counter()
        return 0

    def cuEventElapsedTime(self, milliseconds: Any, first: Any, second: Any) -> int:
        milliseconds._obj.value = 1e3 * (self.events[second.value] - self.events[first.value])
        return 0

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:
        self.recorded = []
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        assert self.recorded is not None
        self.graphs.append(self.recorded)
        graph._obj.value, self.recorded = len(self.graphs), None
        return 0

    def cuGraphInstantiateWithFlags(self, replay: Any, graph: Any, flags: Any) -> int:
        replay._obj.value = graph.value
        return 0

    def cuGraphLaunch(self, replay: Any, stream: Any) -> int:
        self.launched += 1
        for work in self.graphs[replay.value - 1]:
            work()
        return 0

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)
        return lambda *arguments: 0


def simulated_tensorrt(cuda: SimulatedCuda, version: str = "10.3.0", refuses: bool = False) -> Any:
    """The module `tensorrt` as far as a session uses it."""

    class Context:
        def __init__(self) -> None:
            self.shapes: dict[str, tuple[int, ...]] = {}
            self.addresses: dict[str, int] = {}
            self.profiler: Any = None
            self.executed = 0

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self.shapes[name] = shape
            return shape[1:] == (3, SIDE, SIDE) and shape[0] <= 8

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return self.shapes["images"] if name == "images" else (self.shapes["images"][0], 1)

        def set_tensor_address(self, name: str, address: int) -> None:
            self.addresses[name] = address

        def execute_async_v3(self, stream: int) -> bool:
            cuda.put(self._execute)
            return True

        def _execute(self) -> None:
            self.executed += 1
            shape = self.shapes["images"]
            images = (ctypes.c_float * int(np.prod(shape))).from_address(self.addresses["images"])
            sums = np.ctypeslib.as_array(images).reshape(shape).sum(axis=(1, 2, 3))
            ctypes.memmove(self.addresses["logits"], np.ascontiguousarray(sums, np.float32).ctypes.data, 4 * shape[0])
            if self.profiler is not None:
                for name in ("node_Conv_1 + node_relu", "node_linear"):
                    self.profiler.report_layer_time(name, 0.25)

    class SimulatedEngine:
        num_io_tensors = 2

        def create_execution_context(self) -> Context:
            return Context()

        def get_tensor_name(self, i: int) -> str:
            return ("images", "logits")[i]

        def get_tensor_mode(self, name: str) -> str:
            return "in" if name == "images" else "out"

        def get_tensor_dtype(self, name: str) -> str:
            return "float"

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return (-1, 3, SIDE, SIDE) if name == "images" else (-1, 1)

    class Module:
        __version__ = version
        nptype = staticmethod(lambda kind: np.float32)

        class TensorIOMode:
            INPUT = "in"

        class IProfiler:
            def __init__(self) -> None: ...

        class Logger:
            WARNING = 1

            def __init__(self, level: int) -> None: ...

        class Runtime:
            def __init__(self, logger: Any) -> None: ...

            def deserialize_cuda_engine(self, plan: bytes) -> Any:
                return None if refuses else SimulatedEngine()

    return Module


class SimulatedOrt:
    """The module `onnxruntime` with CUDA: sessions on `runs_on`, whose device values are arrays."""

    __version__ = "1.31.1"

    def __init__(self, runs_on: tuple[str, ...], available: tuple[str, ...], plugin: bool = False) -> None:
        self.runs_on, self.available, self.plugin = runs_on, available, plugin
        self.registered: list[tuple[str, str]] = []
        self.sessions: list[Any] = []
        module = self

        class SessionOptions:
            def __init__(self) -> None:
                self.entries: dict[str, str] = {}
                self.devices: list[Any] = []

            def add_session_config_entry(self, key: str, value: str) -> None:
                self.entries[key] = value

            def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
                self.devices, self.device_options = devices, options

        class InferenceSession:
            def __init__(self, path: str, options: Any, providers: Any = ()) -> None:
                self.options, self.providers, self.fallback = options, providers, True
                self.bound_runs = 0
                module.sessions.append(self)

            def get_providers(self) -> list[str]:
                return list(module.runs_on)

            def disable_fallback(self) -> None:
                self.fallback = False

            def get_inputs(self) -> list[Any]:
                return [Tensor("images", ("batch", 3, SIDE, SIDE))]

            def get_outputs(self) -> list[Any]:
                return [Tensor("logits", ("batch", 1))]

            def run(self, names: Any, feeds: dict[str, Any]) -> list[Any]:
                return [feeds["images"].sum(axis=(1, 2, 3))[:, None]]

            def io_binding(self) -> Binding:
                return Binding()

            def run_with_iobinding(self, binding: Binding) -> None:
                self.bound_runs += 1
                result = self.run(None, {"images": binding.inputs["images"].array})[0]
                if binding.outputs.get("logits") is None:
                    binding.outputs["logits"] = Value(result)
                binding.outputs["logits"].array[...] = result

        self.SessionOptions, self.InferenceSession, self.OrtValue = SessionOptions, InferenceSession, Value

    def get_available_providers(self) -> list[str]:
        return list(self.available)

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.registered.append((name, path))

    def get_ep_devices(self) -> list[Any]:
        return [EpDevice(name) for name, _ in self.registered] if self.plugin else []


class EpDevice:
    def __init__(self, name: str) -> None:
        self.ep_name = name


class Tensor:
    type = "tensor(float)"

    def __init__(self, name: str, shape: tuple[Any, ...]) -> None:
        self.name, self.shape = name, shape


class Value:
    copies: ClassVar[int] = 0

    def __init__(self, array: Any) -> None:
        self.array = array

    @staticmethod
    def ortvalue_from_shape_and_type(shape: list[int], dtype: Any, place: str, index: int) -> Value:
        assert place == "cuda"
        return Value(np.zeros(shape, dtype))

    def shape(self) -> list[int]:
        return list(self.array.shape)

    def update_inplace(self, array: Any) -> None:
        self.array[...] = array

    def numpy(self) -> Any:
        return self.array.copy()


class Binding:
    def __init__(self) -> None:
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Any] = {}

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: Value) -> None:
        self.outputs[name] = value

    def bind_output(self, name: str, place: str) -> None:
        self.outputs[name] = None

    def get_outputs(self) -> list[Any]:
        return list(self.outputs.values())

    def synchronize_outputs(self) -> None: ...


SIMULATED_TRTEXEC = """#!{python}
import json, sys
words = dict(word.partition("=")[::2] for word in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v{banner}] # simulated")
if "--help" in words:
    sys.exit(0)
with open("{log}", "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if {fails}:
    print("[01/01/2026-00:00:00] [E] Error[1]: out of memory (simulated)")
    sys.exit(1)
n = int(words["--iterations"])
if "--exportTimes" in words:
    keys = ("h2dMs", "computeMs", "d2hMs", "latencyMs")
    runs = [dict(zip(keys, (0.25, 1.0 + i / 1000, 0.125, 1.375 + i / 1000))) for i in range(n)]
    json.dump(runs, open(words["--exportTimes"], "w"))
if "--exportProfile" in words:
    layer = {{"timeMs": 10.0, "averageMs": 0.5, "percentage": 50.0}}
    median = {{"medianMs": 0.4}} if {banner} >= 8500 else {{}}
    layers = [{{"name": name, **layer, **median}} for name in ("node_Conv_1 + node_relu", "node_linear")]
    json.dump([{{"count": n}}, *layers], open(words["--exportProfile"], "w"))
"""
