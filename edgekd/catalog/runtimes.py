"""What runs a deployed graph, and how a graph is quantized for it."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.catalog._row import Row
from edgekd.errors import ConfigError

OPSET = 18  # the first that torch exports


@dataclass(frozen=True)
class BackendRow(Row):
    runtime: str


@dataclass(frozen=True)
class SchemeRow(Row):
    activations: str
    runtime: str
    precision: str = "int8"  # names the graph: student-int8.onnx
    opset: int = OPSET  # the first that has what it needs
    formats: tuple[str, ...] = ("int8",)  # that the device must have
    waived: tuple[str, ...] = ()  # rules of the lint that it breaks on purpose


def opset_of(scheme: str | None, wanted: int | None) -> int:
    """The opset to export with. Raises ConfigError where the `wanted` one lacks what the scheme needs."""
    least = OPSET if scheme is None else SCHEMES[scheme].opset
    if wanted is not None and wanted < least:
        raise ConfigError(
            f"export.opset: {wanted}, and the scheme {scheme} needs {least}", f"Set it to {least} or to null."
        )
    return wanted or least


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
            opset=19,  # FP16 scales
            formats=("int8", "fp16"),
        ),
        SchemeRow(
            "fp8",
            "edgekd.quantize.schemes.fp8:Fp8",
            "TensorRT on sm_89 and later: E4M3 where tensorrt has INT8, with FP16 for the rest",
            activations="E4M3 per tensor",
            runtime="tensorrt",
            precision="fp8",
            opset=19,
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
