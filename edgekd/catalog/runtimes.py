"""What runs a deployed graph, and how a graph is quantized for it."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.catalog._row import Row


@dataclass(frozen=True)
class BackendRow(Row):
    runtime: str


@dataclass(frozen=True)
class SchemeRow(Row):
    activations: str
    runtime: str


BACKENDS = {
    row.name: row
    for row in (
        BackendRow(
            "onnxruntime-cpu", "edgekd.profile.backends.ort_cpu:OrtCpu", "ONNX Runtime on the processor", "onnxruntime"
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
        ),
        SchemeRow(
            "fp16",
            "edgekd.quantize.schemes.fp16:Fp16",
            "FP16 weights and activations, no integers",
            activations="fp16",
            runtime="tensorrt",
        ),
    )
}
