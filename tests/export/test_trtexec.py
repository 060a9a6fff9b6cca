"""trtexec's command lines, pinned by version against NVIDIA's own sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engines import graph

from edgekd.errors import ConfigError, InputError, ModelError
from edgekd.export.tensorrt import BuildRequest
from edgekd.export.tensorrt.checks import check_version
from edgekd.export.tensorrt.trtexec import build_arguments, timing_arguments

FILES = ["--onnx=student.onnx", "--saveEngine=student.engine"]
SHAPES = ["--minShapes=images:1x3x32x32", "--optShapes=images:8x3x32x32", "--maxShapes=images:32x3x32x32"]
INT8 = graph("int8", 17)
INT8_FP16 = graph("int8 fp16", 19, int8_constants=True)
# JetPack 4.6.1, 5.1, 6.0, 6.2, 7.0, 7.2, 7.2.2 with the TensorRT it can be given, and 11.4 elsewhere
RELEASES = [(8, 2, 1), (8, 5, 2), (8, 6, 2), (10, 3, 0), (10, 13), (10, 16), (11, 4, 1), (11, 4)]


def request(found: Any, batch: Any = (1, 8, 32), **options: Any) -> BuildRequest:
    return BuildRequest(graph=found, compute_capability=87, batch=batch, **options)


@pytest.mark.parametrize(
    ("version", "found", "precision", "last"),
    [
        ((8, 2, 1), graph("fp16", 13), ["--fp16"], "--buildOnly"),
        ((8, 5, 2), INT8, ["--int8", "--fp16"], "--buildOnly"),
        ((8, 5, 2), graph(opset=17), [], "--buildOnly"),
        ((8, 6, 2), INT8, ["--int8", "--fp16"], "--skipInference"),
        ((10, 3, 0), INT8, ["--int8", "--fp16"], "--skipInference"),
        ((10, 3, 0), INT8_FP16, ["--stronglyTyped"], "--skipInference"),
        ((10, 13), graph("fp8 fp16", 19), ["--stronglyTyped"], "--skipInference"),
        ((10, 16), graph("fp16"), ["--stronglyTyped"], "--skipInference"),
        ((11, 4, 1), INT8_FP16, [], "--skipInference"),
        ((11, 4), INT8, [], "--skipInference"),
    ],
)
def test_building_by_version(version: tuple[int, ...], found: Any, precision: list[str], last: str) -> None:
    asked = request(found)
    check_version(asked, version)
    assert build_arguments(version, asked, "student.engine") == [*FILES, *precision, *SHAPES, last]


@pytest.mark.parametrize("version", RELEASES)
def test_limits_by_version(version: tuple[int, ...]) -> None:
    asked = request(graph("fp16", 13), None, workspace=512, timing_cache=Path("t.cache"))
    arguments = build_arguments(version, asked, "student.engine")
    pool = "--workspace=512" if version < (8, 4) else "--memPoolSize=workspace:512"
    assert [a for a in arguments if "512" in a] == [pool] and "--timingCacheFile=t.cache" in arguments
    assert not [a for a in arguments if "Shapes" in a]  # a graph without dynamic sides takes none


@pytest.mark.parametrize(
    ("version", "hardware", "flag"),
    [
        ((8, 6, 2), "ampere+", "ampere+"),
        ((10, 9), "same", "sameComputeCapability"),
        ((11, 4), "same", "sameComputeCapability"),
    ],
)
def test_compatible_engines(version: tuple[int, ...], hardware: Any, flag: str) -> None:
    asked = request(graph(opset=13), version_compatible=True, hardware=hardware)
    check_version(asked, version)
    arguments = build_arguments(version, asked, "student.engine")
    assert {"--versionCompatible", f"--hardwareCompatibilityLevel={flag}"} <= set(arguments)


@pytest.mark.parametrize(
    ("version", "precision"), [((8, 5, 2), ["--fp16"]), ((10, 3, 0), ["--fp16"]), ((11, 4, 1), [])]
)
def test_dla_falls_back_to_the_gpu(version: tuple[int, ...], precision: list[str]) -> None:
    asked = request(graph("fp16", 17), (1, 1, 1), dla=1)
    check_version(asked, version)
    arguments = build_arguments(version, asked, "student.engine")
    assert {"--useDLACore=1", "--allowGPUFallback"} <= set(arguments)
    assert [a for a in arguments if a in ("--fp16", "--int8", "--stronglyTyped")] == precision
    assert "--useDLACore=1" in timing_arguments(version, asked, "student.engine")


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("transfers", [True, False])
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_timing_means_the_same_in_every_version(version: tuple[int, ...], transfers: bool, cuda_graph: bool) -> None:
    arguments = timing_arguments(
        version, request(INT8), "student.engine", batch=8, transfers=transfers, cuda_graph=cuda_graph, times="t.json"
    )
    if version >= (11,):  # leaves transfers out, records a graph and spins unless told otherwise
        flags = ["--includeDataTransfers"] * transfers + ["--noCudaGraph"] * (not cuda_graph)
    else:
        flags = ["--noDataTransfers"] * (not transfers) + ["--useCudaGraph"] * cuda_graph + ["--useSpinWait"]
    assert arguments == [
        "--loadEngine=student.engine", "--shapes=images:8x3x32x32", *flags,
        "--warmUp=200", "--duration=3", "--exportTimes=t.json",
    ]  # fmt: skip


def test_an_odd_name_is_quoted() -> None:
    asked = request(graph(inputs={"in:0": (None, 3, 8, 8)}), (1, 1, 1))
    assert "--minShapes='in:0':1x3x8x8" in build_arguments((10, 3, 0), asked, "student.engine")


@pytest.mark.parametrize(
    ("version", "asked", "error", "message"),
    [
        ((8, 2, 1), request(graph(opset=17)), ModelError, "opset 17, and TensorRT 8.2.1 parses up to 13"),
        ((8, 5, 2), request(graph(opset=18)), ModelError, "--opset 17"),
        ((8, 5, 2), request(INT8_FP16), ModelError, "scheme tensorrt or fp16"),
        ((8, 5, 2), request(graph("int8", 17, int8_constants=True)), ModelError, "stores its weights as INT8"),
        ((8, 6, 2), request(graph("fp8", 17)), ModelError, "is FP8, and TensorRT 8.6.2 has none"),
        ((8, 5, 2), request(INT8, version_compatible=True), ConfigError, "begin with TensorRT 8.6"),
        ((10, 3, 0), request(INT8, hardware="same"), ConfigError, "begins with TensorRT 10.9"),
        ((10, 13), request(graph("fp16"), dla=0), ConfigError, "10.7 was the last before 11.4.1"),
        ((11, 4), request(graph("fp16"), dla=0), ConfigError, "10.7 was the last before 11.4.1"),
        ((11, 4, 1), request(graph(), dla=0), ModelError, "is FP32, which a DLA does not take"),
    ],
)
def test_what_a_version_cannot(
    version: tuple[int, ...], asked: BuildRequest, error: type[InputError], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_version(asked, version)
