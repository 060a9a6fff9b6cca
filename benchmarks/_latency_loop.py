"""Times a graph without edgekd: the loop that `profile_check.py` holds edgekd's figures against.

    python benchmarks/_latency_loop.py MODEL.onnx CORES CALLS

CORES are numbers with commas, one thread each. Prints {"p50_ms", "calls"} as JSON.
"""

import json
import os
import sys
import time

import numpy
import onnxruntime

NUMBERS = {"tensor(float)": numpy.float32, "tensor(uint8)": numpy.uint8}


def main() -> None:
    path, cores, calls = sys.argv[1], [int(core) for core in sys.argv[2].split(",")], int(sys.argv[3])
    os.sched_setaffinity(0, cores)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(cores)
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (tensor,) = session.get_inputs()
    shape = [side if isinstance(side, int) else 1 for side in tensor.shape]
    images = numpy.random.RandomState(1).randn(*shape).astype(NUMBERS[tensor.type])
    for _ in range(max(20, calls // 5)):
        session.run(None, {tensor.name: images})
    durations = []
    for _ in range(calls):
        before = time.monotonic_ns()
        session.run(None, {tensor.name: images})
        durations.append(time.monotonic_ns() - before)
    durations.sort()
    print(json.dumps({"p50_ms": durations[len(durations) // 2] / 1e6, "calls": calls}))


if __name__ == "__main__":
    main()
