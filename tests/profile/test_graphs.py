"""The graphs that are timed: valid, run by ONNX Runtime, as large as counted, and what the export of a model holds."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import shape_inference
from torch import nn

from edgekd.catalog import SPACES
from edgekd.export.onnx import export_fp32
from edgekd.models import build_model
from edgekd.profile.graphs import build_copies, build_input, build_network
from edgekd.profile.operators import Add, Conv, Head, Input, Layer, NormHead, Operator, Pool, Relu, SqueezeExcite, Sum
from edgekd.profile.token_operators import Attention, Gelu, LayerNorm, Linear, Patches, TokenHead, TokenPool
from edgekd.quantize._torchao import convert_pt2e
from edgekd.quantize.graph import calibrate, prepare
from edgekd.quantize.schemes.ort import Ort
from edgekd.search.spaces import Genotype, Space
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace
from edgekd.search.spaces.mobilenet import MobileNetSpace
from edgekd.search.spaces.nasbench201 import NasBench201Space
from edgekd.search.spaces.pit import PiTSpace


def executed(graph: bytes | Path, directory: Path) -> Counter[str]:
    """Operators of the graph that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(directory / "optimised.onnx")
    options.log_severity_level = 3
    source = graph if isinstance(graph, bytes) else str(graph)
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(directory / "optimised.onnx").graph.node)


def macs(graph: bytes) -> int:
    """Multiply-accumulates of one image, from the shapes of the graph alone; channels of zeros do not count."""
    model = onnx.load_from_string(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*inferred.value_info, *inferred.input, *inferred.output]
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    total, filled = 0, set()
    for node in model.graph.node:
        if node.op_type == "Pad" or node.input[0] in filled and node.op_type.endswith("Linear"):
            filled.add(node.output[0])
        out = int(np.prod(shapes[node.output[0]])) if node.op_type in ("Conv", "Gemm", "MatMul") else 0
        if node.op_type == "Conv":
            channels, *window = shapes[node.input[1]][1:]
            total += out * int(np.prod([3 if node.input[0] in filled else channels, *window]))
        elif out:
            total += out * shapes[node.input[0]][-1]
    return total


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("name", SPACES)
def test_every_spaces_networks_run_at_any_batch(name: str, precision: Any) -> None:
    space = SPACES[name].load()(7, (3, 24, 24))
    for genotype in (space.smallest(), space.sample(random.Random(5))):
        graph = build_network(space.network(genotype), precision)
        onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
        assert macs(graph) == space.point(genotype).macs
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        images = np.random.default_rng(0).standard_normal((2, 3, 24, 24)).astype(np.float32)
        (logits,) = session.run(["logits"], {"images": images})
        assert logits.shape == (2, 7) and np.isfinite(logits).all()


def test_every_operator_of_an_int8_network_is_fused(tmp_path: Path) -> None:
    space = CifarResNetSpace(10, (3, 32, 32))
    network = space.network(Genotype(depths=(2, 1, 2), widths=(16, 24, 32)))
    ran = executed(build_network(network, "int8"), tmp_path)
    assert ran["QLinearConv"] == 1 + 2 * 5 + 2 and ran["QLinearAdd"] == 5 and ran["QGemm"] == 1
    assert ran["Conv"] == ran["Add"] == ran["Relu"] == 0


PIT = PiTSpace(5, (3, 16, 16)), Genotype(base_dim=(16,), depths=(1, 1, 1), num_heads=(2, 4, 8), mlp_ratio=(2,))
MOBILENET = MobileNetSpace(5, (3, 16, 16))
SQUEEZED = {"depths": (1, 2, 1, 1, 1, 1, 1), "squeeze": (0, 1, 0, 0, 0, 0, 0)}
GATED = MOBILENET, Genotype(**{**dict(MOBILENET.smallest().fields), **SQUEEZED})


@pytest.mark.parametrize(
    ("space", "genotype"), [PIT, pytest.param(*GATED, marks=pytest.mark.slow)], ids=["pit", "mobilenet"]
)
def test_it_runs_what_the_export_of_the_model_runs(space: Space, genotype: Genotype, tmp_path: Path) -> None:
    """But around the classifier, which is float at its edges here, and a transposition."""
    torch.manual_seed(0)
    model = build_model(space.spec(genotype))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    scheme = Ort(8)
    prepared = prepare(model, space.input_shape, scheme)
    calibrate(prepared, [torch.randn(4, *space.input_shape)])
    export_fp32(convert_pt2e(prepared), tmp_path / "export.onnx", space.input_shape, 18, finish=scheme.finish)
    exported = executed(tmp_path / "export.onnx", tmp_path)
    built = executed(build_network(space.network(genotype), "int8"), tmp_path)
    edges = ("ReduceMean", "QLinearGlobalAveragePool", "Reshape")
    differ = {kind: built[kind] - exported[kind] for kind in built | exported if built[kind] != exported[kind]}
    assert all(abs(more) <= 2 for more in differ.values()), differ
    assert set(differ) <= {"QuantizeLinear", "DequantizeLinear", "Transpose", *edges}, differ


def test_average_pools_and_lone_relus_of_a_cell(tmp_path: Path) -> None:
    space = NasBench201Space(10, (3, 16, 16))
    operations = ("nor_conv_3x3", "skip_connect", "avg_pool_3x3", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
    ran = executed(build_network(space.network(Genotype(operations=operations)), "int8"), tmp_path)
    assert ran["QLinearConv"] == 1 + 15 * 3 + 2 * 3 and ran["QLinearAveragePool"] == 15 + 2
    assert ran["QLinearAdd"] == 15 * 3 + 2
    assert ran["Relu"] == ran["BatchNormalization"] == 1  # the network's end; the other 32 are their Q/DQ


@pytest.mark.parametrize(
    ("op", "fused"),
    [
        (Conv(16, 16, 3, 1, 8, 8), "QLinearConv"),
        (Conv(16, 24, 3, 2, 8, 8), "QLinearConv"),
        (Conv(16, 24, 1, 2, 8, 8, relu=False), "QLinearConv"),
        (Conv(16, 16, 3, 1, 8, 8, groups=16), "QLinearConv"),
        (Add(16, 8, 8), "QLinearAdd"),
        (Sum((16, 8, 8)), "QLinearAdd"),
        (Sum((5, 16)), "QLinearAdd"),
        (Head(16, 8, 8, 10), "QGemm"),
    ],
)
def test_copies_are_all_run_and_all_int8(op: Any, fused: str, tmp_path: Path) -> None:
    few, many = (executed(build_copies(op, copies, "int8"), tmp_path) for copies in (2, 6))
    assert few[fused] == 2 and many[fused] == 6
    assert not {"Conv", "Add", "Gemm"} & set(many)
    if not isinstance(op, Head):
        assert "DequantizeLinear" not in many  # nothing but the operator and the scrap


@pytest.mark.parametrize(
    ("op", "int8", "fp32"),
    [
        (Relu(16, 8, 8), "QuantizeLinear", "Relu"),
        (Pool("max", 16, 3, 2, 1, 8, 8), "NhwcMaxPool", "MaxPool"),
        (Pool("avg", 16, 3, 1, 1, 8, 8), "QLinearAveragePool", "AveragePool"),
        (Pool("avg", 16, 2, 2, 0, 8, 8), "QLinearAveragePool", "AveragePool"),
        (SqueezeExcite(32, 16, 8, 8), "Sigmoid", "Mul"),
        (NormHead(16, 8, 8, 10), "QGemm", "Gemm"),
        (Patches(3, 16, 4, 4, 8, 8), "QLinearConv", "Conv"),
        (Patches(3, 16, 4, 2, 8, 8, placed=False), "QLinearConv", "Conv"),
        (Linear(5, 16, 16), "MatMulIntegerToFloat", "MatMul"),
        (Linear(5, 16, 24), "MatMulIntegerToFloat", "MatMul"),
        (LayerNorm(5, 16), "LayerNormalization", "LayerNormalization"),
        (Gelu(5, 16), "Erf", "Erf"),
        (Attention(5, 2, 8), "Softmax", "Softmax"),
        (TokenPool(16, 32, 4, 4), "QLinearConv", "Conv"),
        (TokenHead(5, 16, 10), "QGemm", "Gemm"),
    ],
)
def test_two_copies_differ_from_six_by_four(op: Operator, int8: str, fp32: str, tmp_path: Path) -> None:
    for precision, kind in (("int8", int8), ("fp32", fp32)):
        few, many = (executed(build_copies(op, copies, precision), tmp_path) for copies in (2, 6))  # type: ignore[arg-type]
        assert many[kind] - few[kind] == 4
        if isinstance(op, Pool):
            assert few["QLinearConv"] == many["QLinearConv"] and few["Conv"] == many["Conv"]


def test_images_alone_are_quantized(tmp_path: Path) -> None:
    assert executed(build_input(Input(3, 8, 8), "int8"), tmp_path)["QuantizeLinear"] == 1


def test_an_unknown_operator_is_refused() -> None:
    class Fold(Operator): ...

    with pytest.raises(TypeError, match="has no graph"):
        build_network([Layer(Input(3, 8, 8), ()), Layer(Fold(), (0,))], "int8")
