"""What runs a deployed graph, and how a graph is quantized for it."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.catalog._row import Row

OPSET = 18  # the first that torch exports
LEAST_OPSET = 13  # the first whose Q/DQ have an axis, for scales by channel

# The newest opset that TensorRT parses, from a version on. Up to 10.0: docs/operators.md of onnx-tensorrt's releases;
# 10.13: a third party's summary of NVIDIA's notes.
_PARSED = {(8, 0): 13, (8, 4): 17, (10, 0): 20, (10, 13): 24}


@dataclass(frozen=True)
class BackendRow(Row):
    runtime: str
    takes: str = "graph"  # or checkpoint, or engine, which it builds of a graph where it is given one
    gpu: bool = False  # where it runs
    turn: int | None = None  # runs of one model before the next has its turn, where starting one costs


@dataclass(frozen=True)
class SchemeRow(Row):
    activations: str
    runtime: str
    precision: str = "int8"  # names the graph: student-int8.onnx
    least_opset: int = LEAST_OPSET  # the first that has what it needs
    formats: tuple[str, ...] = ("int8",)  # that the device must have
    waived: tuple[str, ...] = ()  # rules of the lint that it breaks on purpose


def parsed_opset(version: tuple[int, ...]) -> int:
    """The newest opset that TensorRT `version`, 8.0 or later, parses."""
    return max(opset for first, opset in _PARSED.items() if first <= max(version, (8, 0)))


BACKENDS = {
    row.name: row
    for row in (
        BackendRow(
            "onnxruntime-cpu", "edgekd.profile.backends.ort_cpu:OrtCpu", "ONNX Runtime on the processor", "onnxruntime"
        ),
        BackendRow(
            "onnxruntime-reference",
            "edgekd.profile.backends.ort_cpu:OrtReference",
            "ONNX Runtime without optimizations: accuracy, where a graph's own runtime is not here",
            "reference",
        ),
        BackendRow(
            "onnxruntime-cuda",
            "edgekd.profile.backends.ort_gpu:OrtCuda",
            "ONNX Runtime with CUDA kernels: FP32 and FP16",
            "onnxruntime",
            gpu=True,
        ),
        BackendRow(
            "onnxruntime-tensorrt",
            "edgekd.profile.backends.ort_gpu:OrtTensorRt",
            "ONNX Runtime, which builds and runs TensorRT engines",
            "tensorrt",
            gpu=True,
        ),
        BackendRow(
            "onnxruntime-tensorrt-rtx",
            "edgekd.profile.backends.ort_gpu:OrtTensorRtRtx",
            "ONNX Runtime with the plugin of TensorRT-RTX",
            "tensorrt",
            gpu=True,
        ),
        BackendRow(
            "tensorrt",
            "edgekd.profile.backends.tensorrt:TensorRt",
            "TensorRT or TensorRT-RTX by its Python package",
            "tensorrt",
            takes="engine",
            gpu=True,
        ),
        BackendRow(
            "trtexec",
            "edgekd.profile.backends.trtexec:Trtexec",
            "TensorRT's own program, where there is no Python package",
            "tensorrt",
            takes="engine",
            gpu=True,
            turn=200,
        ),
        BackendRow(
            "torch-cuda",
            "edgekd.profile.backends.torch_cuda:TorchCuda",
            "torch on a GPU: a checkpoint as it was trained, for comparison",
            "torch",
            takes="checkpoint",
            gpu=True,
        ),
    )
}

SCHEMES = {
    row.name: row
    for row in (
        SchemeRow(
            "ort",
            "edgekd.quantize.schemes.ort:Ort",
            "ONNX Runtime on CPUs: Q/DQ on every conv, linear and add output after its ReLU",
            activations="uint8 affine per tensor",
            runtime="onnxruntime",
        ),
        SchemeRow(
            "tensorrt",
            "edgekd.quantize.schemes.tensorrt:TensorRt",
            "TensorRT: Q/DQ on the inputs of weighted layers and on the skip of an addition",
            activations="int8 symmetric per tensor",
            runtime="tensorrt",
        ),
        SchemeRow(
            "int8+fp16",
            "edgekd.quantize.schemes.int8_fp16:Int8Fp16",
            "TensorRT: as tensorrt, with FP16 for what is not INT8",
            activations="int8 symmetric per tensor",
            runtime="tensorrt",
            precision="int8-fp16",
            least_opset=19,  # FP16 scales
            formats=("int8", "fp16"),
        ),
        SchemeRow(
            "fp8",
            "edgekd.quantize.schemes.fp8:Fp8",
            "TensorRT on sm_89 and later: E4M3 where tensorrt has INT8, with FP16 for the rest",
            activations="E4M3 per tensor",
            runtime="tensorrt",
            precision="fp8",
            least_opset=19,
            formats=("fp8", "fp16"),
        ),
        SchemeRow(
            "int8-weight-only",
            "edgekd.quantize.schemes.weight_only:WeightOnly",
            "Any runtime: weights stored as INT8, computed in float; a quarter of the size, no faster",
            activations="float",
            runtime="onnxruntime",
            precision="int8-weights",
            formats=(),
            waived=("float input",),
        ),
        SchemeRow(
            "fp16",
            "edgekd.quantize.schemes.fp16:Fp16",
            "FP16 weights and activations, no integers",
            activations="fp16",
            runtime="tensorrt",
            precision="fp16",
            formats=("fp16",),
        ),
    )
}
