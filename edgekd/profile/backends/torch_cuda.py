"""torch on a GPU, for comparison: what the checkpoint costs before any runtime has optimised it. Nothing ships this."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import Checkpoint, Engine, OnnxModel
from edgekd.errors import BackendError
from edgekd.profile.backends._base import Feeds, Phases
from edgekd.profile.backends._gpu import no_gpu
from edgekd.profile.device import Device
from edgekd.profile.devices import device_identity
from edgekd.profile.machine import package_version

INPUT, OUTPUT = "images", "logits"
BEFORE_CAPTURE = 3  # runs on a side stream, as torch's notes on CUDA graphs have it: kernels are chosen in the first


class TorchCudaSession:
    """An FP32 network in eval mode, inputs and outputs in page-locked memory; torch.compile is not used."""

    inputs: dict[str, tuple[np.dtype[Any], tuple[int | None, ...]]]

    def __init__(self, checkpoint: Checkpoint, cuda_graph: bool) -> None:
        import torch

        from edgekd.models import load_checkpoint

        if not torch.cuda.is_available():
            raise BackendError(
                f"torch {torch.__version__} finds no GPU", "Install torch for CUDA, on a machine with an NVIDIA GPU."
            )
        self._torch: Any = torch
        self._cuda_graph = cuda_graph
        self._model: Any = load_checkpoint(checkpoint).eval().cuda()
        where = {parameter.device.type for parameter in self._model.parameters()}
        if where != {"cuda"}:
            raise BackendError(
                f"{checkpoint.path} would run on {', '.join(sorted(where))}, not on the GPU", "Report it."
            )
        self.inputs = {INPUT: (np.dtype(np.float32), (None, *checkpoint.spec.input_shape))}
        self.provider = f"torch {torch.__version__} on {torch.cuda.get_device_name()}"
        self.phases: Phases = {}
        self._stream = self._torch.cuda.Stream()
        self._shape: tuple[int, ...] = ()
        self._host_in: Any = None
        self._graph: Any = None

    @property
    def settings(self) -> dict[str, Any]:
        backends = self._torch.backends
        return {
            "transfers": "inputs and outputs are copied from and to page-locked memory, in the time",
            "cuda_graph": self._cuda_graph,
            "tf32": {"matmul": backends.cuda.matmul.allow_tf32, "convolutions": backends.cudnn.allow_tf32},
            "cudnn_benchmark": backends.cudnn.benchmark,
        }

    def infer(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        self._place(feeds[INPUT])
        with self._torch.inference_mode(), self._torch.cuda.stream(self._stream):
            self._upload()
            self._compute()
            self._download()
        self._stream.synchronize()
        logits: NDArray[Any] = self._host_out.numpy().copy()
        return {OUTPUT: logits}

    def time(self, feeds: Feeds, n: int, warmup: int) -> list[int]:
        for _ in range(warmup):
            self.infer(feeds)
        clock, steps = time.perf_counter_ns, (self._upload, self._compute, self._download)
        events = [self._torch.cuda.Event(enable_timing=True) for _ in range(len(steps) + 1)]
        samples: list[int] = []
        phases: Phases = {"h2d": [], "compute": [], "d2h": []}
        with self._torch.inference_mode(), self._torch.cuda.stream(self._stream):
            for _ in range(n):
                start = clock()
                events[0].record(self._stream)
                for step, event in zip(steps, events[1:], strict=True):
                    step()
                    event.record(self._stream)
                self._stream.synchronize()
                samples.append(clock() - start)
                for name, first, second in zip(phases, events, events[1:], strict=False):
                    phases[name].append(round(1e6 * first.elapsed_time(second)))
        self.phases = phases
        return samples

    def _place(self, images: NDArray[Any]) -> None:
        """Memory for images of this shape, and a graph recorded where one is asked for."""
        torch = self._torch
        if images.shape == self._shape:
            self._host_in.copy_(torch.from_numpy(images))
            return
        self._shape, self._graph = images.shape, None
        self._host_in = torch.from_numpy(images).pin_memory()
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._device_in = self._host_in.to("cuda", non_blocking=True)
            for _ in range(BEFORE_CAPTURE):
                self._device_out = self._model(self._device_in)
            self._host_out = torch.empty(self._device_out.shape, dtype=self._device_out.dtype, pin_memory=True)
        self._stream.synchronize()
        if self._cuda_graph:
            graph = torch.cuda.CUDAGraph()
            with torch.inference_mode(), torch.cuda.graph(graph, stream=self._stream):
                self._device_out = self._model(self._device_in)
            self._graph = graph

    def _upload(self) -> None:
        self._device_in.copy_(self._host_in, non_blocking=True)

    def _compute(self) -> None:
        if self._graph is not None:
            self._graph.replay()
        else:
            self._device_out = self._model(self._device_in)

    def _download(self) -> None:
        self._host_out.copy_(self._device_out, non_blocking=True)

    def __enter__(self) -> TorchCudaSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._graph = self._model = None


class TorchCuda:
    """Backend `torch-cuda`: the engine is the checkpoint's directory."""

    def unable(self, device: Device) -> tuple[str, str] | None:
        reason = no_gpu(device)
        if reason is None and find_spec("torch") is None:
            reason = f"target {device.name}: torch is not installed", "pip install torch"
        return reason

    def build(self, onnx: OnnxModel, device: Device, batch: int = 1) -> Engine:
        if not (Path(onnx.path) / "checkpoint.json").is_file():
            raise BackendError(f"{onnx.artifact} is no checkpoint, and torch runs nothing else", "Name its checkpoint.")
        return Engine(
            onnx.path, device.backend, device_identity(device), {"torch": package_version("torch") or "absent"}
        )

    def open(self, engine: Engine, threads: int, cuda_graph: bool = False) -> TorchCudaSession:
        return TorchCudaSession(Checkpoint.load(Path(engine.path)), cuda_graph)

    def layers(self, engine: Engine, feeds: Feeds, runs: int, threads: int) -> list[dict[str, Any]]:
        raise BackendError(
            "torch-cuda has no profile of layers as they run", "Leave out --per-layer, or use another --backend."
        )
