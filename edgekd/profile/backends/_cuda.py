"""Memory, a stream, events and graphs by the CUDA driver's own library: there is no toolkit to look for."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import BackendError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: not synchronised with the default stream
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_POINTER = ctypes.c_uint64  # CUdeviceptr


class Cuda:
    """The first GPU, in the primary context that TensorRT and torch use too. Raises BackendError where a call fails."""

    def __init__(self) -> None:
        try:
            self._driver: Any = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        except OSError:
            raise BackendError("there is no NVIDIA driver here", "Run it on a machine with an NVIDIA GPU.") from None
        device, context, self._stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(self._stream), _NON_BLOCKING)

    @property
    def stream(self) -> int:
        return int(self._stream.value or 0)

    def allocate(self, size: int) -> int:
        """The address of `size` bytes of device memory."""
        pointer = _POINTER()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return int(pointer.value)

    def free(self, pointer: int) -> None:
        self._call("cuMemFree_v2", _POINTER(pointer))

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array in page-locked memory, which the GPU copies by itself. `unpin` frees it."""
        size = int(np.prod(shape)) * dtype.itemsize
        pointer = ctypes.c_void_p()
        self._call("cuMemAllocHost_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        memory = (ctypes.c_uint8 * size).from_address(int(pointer.value or 0))
        array: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        return array

    def unpin(self, array: NDArray[Any]) -> None:
        self._call("cuMemFreeHost", ctypes.c_void_p(array.ctypes.data))

    def upload(self, pointer: int, array: NDArray[Any]) -> None:
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", _POINTER(pointer), ctypes.c_void_p(array.ctypes.data), size, self._stream)

    def download(self, array: NDArray[Any], pointer: int) -> None:
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(array.ctypes.data), _POINTER(pointer), size, self._stream)

    def wait(self) -> None:
        self._call("cuStreamSynchronize", self._stream)

    def event(self) -> Any:
        found = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(found), 0)
        return found

    def record(self, event: Any) -> None:
        """Have the stream note the time when it comes here."""
        self._call("cuEventRecord", event, self._stream)

    def elapsed_ns(self, first: Any, second: Any) -> int:
        """Between two events that have been waited for; the GPU's clock has steps of half a microsecond."""
        milliseconds = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(milliseconds), first, second)
        return round(1e6 * milliseconds.value)

    def capture(self, work: Callable[[], None]) -> Any:
        """What `work` puts on the stream, as a graph that `launch` replays."""
        graph, replay = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
        try:
            work()
        finally:
            self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(replay), graph, ctypes.c_ulonglong(0))
        self._call("cuGraphDestroy", graph)
        return replay

    def launch(self, replay: Any) -> None:
        self._call("cuGraphLaunch", replay, self._stream)

    def drop(self, replay: Any) -> None:
        self._call("cuGraphExecDestroy", replay)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code != 0:
            raise BackendError(f"the CUDA driver gives error {code} in {name}", "See nvidia-smi, or tegrastats.")
