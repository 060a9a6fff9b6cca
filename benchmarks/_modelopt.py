"""INT8 by ModelOpt, run by an interpreter that has it: its pins of onnx and onnxruntime are not those of edgekd.

python _modelopt.py FLOAT.onnx IMAGES.npy INT8.onnx       # pip install 'nvidia-modelopt[onnx]'

Its defaults, but for what is not quantized staying FP32: the graph is then measured on a processor.
"""

from __future__ import annotations

import sys

import numpy as np
from modelopt.onnx.quantization import quantize


def main() -> None:
    graph, images, out = sys.argv[1:]
    data = {"images": np.load(images)}
    quantize(graph, calibration_data=data, calibration_eps=["cpu"], high_precision_dtype="fp32", output_path=out)


if __name__ == "__main__":
    main()
