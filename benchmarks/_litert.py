"""LiteRT, TensorFlow's runtime for small devices (`pip install ai-edge-litert`), timed beside ONNX Runtime.

    python _litert.py MODEL.tflite MODEL.onnx RUNS        # JSON: p50 of each in ms, preemptions

Both are opened with one thread in one process pinned to one core and take turns, as `edgekd.profile` has it; a run goes
from the caller's array to the caller's array, each in its file's own type. LiteRT takes its XNNPACK kernels by itself.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgekd.profile.backends.ort_cpu import OrtCpuSession
from edgekd.profile.latency import REWARM, ROUND
from edgekd.profile.worker import quiet_cores, random_feeds

WARMUP = 50


class LiteRtSession:
    """A .tflite file of one input [B, H, W, C] and one output [B, K] on one thread, at a fixed batch."""

    def __init__(self, path: str, batch: int = 1) -> None:
        self._interpreter = Interpreter(path, num_threads=1)
        (self._input,), (self._output,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._interpreter.resize_tensor_input(self._input["index"], (batch, *self._input["shape"][1:]))
        self._interpreter.allocate_tensors()

    def quantized(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Pixels [B, H, W, C], 0 to 255 as the model was trained on them, in the type of its input."""
        if self._input["dtype"] == np.float32:
            return pixels.astype(np.float32)
        scale, zero_point = self._input["quantization"]
        limits = np.iinfo(self._input["dtype"])
        return np.clip(np.round(pixels / scale + zero_point), limits.min, limits.max).astype(self._input["dtype"])

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        self._interpreter.set_tensor(self._input["index"], inputs)
        self._interpreter.invoke()
        outputs: NDArray[Any] = self._interpreter.get_tensor(self._output["index"])
        return outputs

    def time(self, inputs: NDArray[Any], n: int, warmup: int) -> list[int]:
        """`n` durations in ns after `warmup` untimed runs."""
        for _ in range(warmup):
            self.run(inputs)
        samples = []
        for _ in range(n):
            start = time.perf_counter_ns()
            self.run(inputs)
            samples.append(time.perf_counter_ns() - start)
        return samples


def main() -> None:
    tflite, onnx, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, quiet_cores(1))
    peer, own = LiteRtSession(tflite), OrtCpuSession(onnx, threads=1)
    pixels = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8, endpoint=True)
    timers = {
        "litert": lambda n, warmup: peer.time(peer.quantized(pixels), n, warmup),
        "onnxruntime": lambda n, warmup: own.time(random_feeds(own, 1), n, warmup),
    }
    samples: dict[str, list[int]] = {name: [] for name in timers}
    preempted = dict.fromkeys(timers, 0)
    for timer in timers.values():
        timer(0, WARMUP)
    for _ in range(-(-runs // ROUND)):
        for name, timer in timers.items():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            samples[name] += timer(ROUND, REWARM)
            preempted[name] += resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before
    p50 = {name: statistics.median(values) / 1e6 for name, values in samples.items()}
    print(json.dumps({"p50_ms": p50, "preempted": preempted, "n": len(samples["litert"])}))


if __name__ == "__main__":
    main()
