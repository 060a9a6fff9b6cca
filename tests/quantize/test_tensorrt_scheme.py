"""The `tensorrt` scheme: placement on small nets, NVIDIA's own parser and builder, and FP16 around the integers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.catalog import SCHEMES
from edgekd.config import ExportConfig
from edgekd.errors import BackendError
from edgekd.export import export_fp32
from edgekd.export.signature import sign
from edgekd.export.tensorrt import BUILDERS, BuildRequest, Built, build, read_graph
from edgekd.models import build_model
from edgekd.profile.abilities import opset_for
from edgekd.profile.backends.ort_cpu import OrtCpuSession
from edgekd.profile.devices import load_device
from edgekd.quantize import convert, export_quantized
from edgekd.quantize.graph import calibrate, prepare, scheme_of, state_of
from edgekd.quantize.lint import lint
from edgekd.quantize.lint.rules import formats
from edgekd.quantize.schemes.tensorrt import TensorRt

RESNET = ModelSpec("edgekd", "resnet8", 10, (3, 32, 32))
NETS = {
    "resnet8": RESNET,
    "resnet18": ModelSpec("timm", "resnet18", 10, (3, 64, 64)),
    "mobilenetv2": ModelSpec("timm", "mobilenetv2_050", 10, (3, 64, 64)),
    "mobilenetv3": ModelSpec("timm", "mobilenetv3_small_050", 10, (3, 64, 64)),
    "efficientnet-lite": ModelSpec("timm", "efficientnet_lite0", 10, (3, 64, 64)),
    "densenet": ModelSpec("timm", "densenet121", 10, (3, 64, 64)),
    "vit": ModelSpec(
        "timm",
        "vit_tiny_patch16_224",
        10,
        (3, 32, 32),
        {"img_size": 32, "patch_size": 4, "depth": 2, "embed_dim": 64, "num_heads": 4},
    ),
}
METHODS = "edgekd.distill.methods"
HEAD = {"classifier": "fc", "width": 64, "num_classes": 10}
# What dho and lelp ship: a head that mixes two, and one that sums subclasses.
NETS |= {
    "two heads": replace(RESNET, around={"class": f"{METHODS}.dho:DualHead", "kwargs": {**HEAD, "alpha": 0.4}}),
    "subclasses": replace(RESNET, around={"class": f"{METHODS}.lelp:Subclassed", "kwargs": {**HEAD, "subclasses": 4}}),
}


def quantized(spec: ModelSpec, out: Path, scheme: str) -> tuple[Checkpoint, torch.Tensor]:
    """A network of random weights and settled statistics, calibrated, as quantize leaves it; and the images."""
    torch.manual_seed(0)
    model = build_model(spec)
    images = torch.randn(16, *spec.input_shape)
    with torch.no_grad():
        model.train()
        model(images)
        model.eval()
    out.mkdir(exist_ok=True)
    options = SCHEMES[scheme].load().options(load_device("x86-cpu"))
    checkpoint = Checkpoint(str(out), spec, scheme=scheme, scheme_options=options)
    prepared = prepare(model, spec.input_shape, scheme_of(checkpoint))
    calibrate(prepared, [images])
    save_file(state_of(prepared, images[:2]), checkpoint.weights)
    return checkpoint, images


def run(path: Path, images: torch.Tensor) -> np.ndarray:
    with OrtCpuSession(str(path), 1, optimised=False) as session:
        return session.infer({"images": images.numpy()})["logits"]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        *((name, "tensorrt") for name in ("resnet8", "mobilenetv3", "vit", "two heads", "subclasses")),
        *((name, "ort") for name in ("two heads", "subclasses")),
        pytest.param("densenet", "tensorrt", marks=pytest.mark.slow),
    ],
)
def test_it_exports_clean_and_computes_what_torch_does(name: str, scheme: str, tmp_path: Path) -> None:
    checkpoint, images = quantized(NETS[name], tmp_path / "q", scheme)
    path = tmp_path / "int8.onnx"
    export_quantized(checkpoint, path, opset_for(None, checkpoint.scheme))
    report = lint(path, SCHEMES[scheme].runtime)
    assert not report.problems, report.problems
    assert report.conv[0] > 0
    with torch.no_grad():
        assert cosine(run(path, images), convert(checkpoint)(images).numpy()) > 0.999


def test_residual_blocks_quantize_the_skip_alone(tmp_path: Path) -> None:
    checkpoint, _ = quantized(RESNET, tmp_path / "q", "tensorrt")
    export_quantized(checkpoint, tmp_path / "int8.onnx", 18)
    report = lint(tmp_path / "int8.onnx", "tensorrt")
    assert report.add == (3, 3) and report.conv == (9, 9)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "Add":
            assert sorted(makers[name].op_type for name in node.input) == ["Conv", "DequantizeLinear"]


def test_small_convolutions_stay_float() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.depthwise = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, groups=32)
            self.narrow, self.tiny = nn.Conv2d(32, 12, 1), nn.Conv2d(12, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.tiny(self.narrow(self.depthwise(self.stem(x))).relu())

    prepared = prepare(Net(), (3, 12, 12), TensorRt())
    convolutions = [node for node in prepared.graph.nodes if "conv2d" in str(node.target)]
    weights = [node.args[1].op == "call_module" for node in convolutions]
    assert weights == [True, True, True, False]  # 12 and 8 channels: no side has the 16 of a tensor core


@pytest.mark.parametrize("scheme", ["int8+fp16", "fp16"])
@pytest.mark.parametrize("name", ["resnet8", "vit"])
def test_fp16_graphs_are_strongly_typed(name: str, scheme: str, tmp_path: Path) -> None:
    checkpoint, images = quantized(NETS[name], tmp_path / "q", scheme)
    path = tmp_path / "typed.onnx"
    export_quantized(checkpoint, path, opset_for(None, checkpoint.scheme))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    floats = [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert all("norm" in constant for constant in floats), floats
    assert [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)] == [1, 1]
    with torch.no_grad():
        assert cosine(run(path, images), convert(checkpoint)(images).numpy()) > 0.999
    report = lint(path, "tensorrt")
    assert not report.problems
    # The classifiers have ten outputs, too few for a tensor core.
    whole = {"resnet8": [(9, 9), (3, 3), (0, 1)], "vit": [(1, 1), (0, 4), (8, 9)]}
    if scheme != "fp16":
        assert [report.conv, report.add, report.gemm] == whole[name]


@pytest.mark.parametrize("name", ["resnet8", "vit"])
def test_fp8_is_stored_and_rounds_as_torch_does(name: str, tmp_path: Path) -> None:
    checkpoint, images = quantized(NETS[name], tmp_path / "q", "fp8")
    path = tmp_path / "fp8.onnx"
    export_quantized(checkpoint, path, 19)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT8E4M3FN and len(t.dims) > 1]
    assert len(weights) == {"resnet8": 9, "vit": 9}[name]
    assert formats(model).keys() == {"fp8"}
    with torch.no_grad():
        assert cosine(run(path, images), convert(checkpoint)(images).numpy()) > 0.999
    assert not lint(path, "tensorrt").problems


def test_weights_alone_are_a_quarter_of_the_size(tmp_path: Path) -> None:
    checkpoint, images = quantized(NETS["mobilenetv3"], tmp_path / "q", "int8-weight-only")
    export_quantized(checkpoint, tmp_path / "weights.onnx", 18)
    export_fp32(build_model(NETS["mobilenetv3"]), tmp_path / "float.onnx", NETS["mobilenetv3"].input_shape, 18)
    ratio = (tmp_path / "weights.onnx").stat().st_size / (tmp_path / "float.onnx").stat().st_size
    assert ratio < 0.36  # a net of small layers: names and scales weigh too
    assert lint(tmp_path / "weights.onnx", waived=SCHEMES["int8-weight-only"].waived).clean
    with torch.no_grad():
        assert cosine(run(tmp_path / "weights.onnx", images), convert(checkpoint)(images).numpy()) > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_graph_is_valid_and_runs_at_any_batch(name: str, scheme: str, tmp_path: Path) -> None:
    checkpoint, images = quantized(NETS[name], tmp_path / "q", scheme)
    path, many = tmp_path / "graph.onnx", torch.cat([images] * 4)
    export_quantized(checkpoint, path, opset_for(None, scheme))
    onnx.checker.check_model(path, full_check=True)
    logits = {batch: run(path, many[:batch]) for batch in (1, 3, 64)}
    for batch, found in logits.items():
        assert found.shape == (batch, 10) and np.isfinite(found).all()
        assert cosine(found, logits[64][:batch]) > 0.999


RTX = BUILDERS["tensorrt-rtx"]
needs_rtx = pytest.mark.skipif(RTX.version() is None, reason="tensorrt-rtx-cu13 is not installed")


def engine(path: Path, target: str) -> Built:
    """What NVIDIA's parser and builder make of a graph at batch 1."""
    device = load_device(target)
    request = BuildRequest(graph=read_graph(path), compute_capability=device.sm_number, batch=(1, 1, 1))
    return build(request, device, RTX, path.with_suffix(".engine"), path.with_suffix(".log"))


@pytest.mark.trt
@needs_rtx
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("scheme", ["tensorrt", "int8+fp16", "fp8"])
def test_nvidias_builder_takes_it(name: str, scheme: str, tmp_path: Path) -> None:
    checkpoint, _ = quantized(NETS[name], tmp_path / "q", scheme)
    path = tmp_path / "int8.onnx"
    targets = {
        "tensorrt": ("rtx-3060",),
        "int8+fp16": ("t4", "rtx-3060", "rtx-4090", "rtx-5090"),
        "fp8": ("rtx-4090", "rtx-5090"),
    }
    export_quantized(checkpoint, path, opset_for(None, scheme))
    for target in targets[scheme]:
        assert engine(path, target).header.bytes > 0


@pytest.mark.trt
@needs_rtx
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("scheme", ["tensorrt", "fp16"])
@pytest.mark.parametrize("opset", [13, 17])
def test_nvidias_builder_takes_what_tensorrt_8_is_given(name: str, scheme: str, opset: int, tmp_path: Path) -> None:
    checkpoint, images = quantized(NETS[name], tmp_path / "q", scheme)
    for version in (18, opset):
        export_quantized(checkpoint, tmp_path / f"{version}.onnx", version)
    assert cosine(run(tmp_path / f"{opset}.onnx", images), run(tmp_path / "18.onnx", images)) > 0.999
    new, old = (engine(tmp_path / f"{version}.onnx", "rtx-3060").header.bytes for version in (18, opset))
    assert abs(old / new - 1) < 0.01  # weights that are float in the file are INT8 in the engine


@pytest.mark.trt
@needs_rtx
@pytest.mark.parametrize("scheme", ["tensorrt", "int8+fp16"])
def test_nvidias_builder_takes_pixels_and_gives_classes(scheme: str, tmp_path: Path) -> None:
    checkpoint, _ = quantized(RESNET, tmp_path / "q", scheme)
    path, config = tmp_path / "int8.onnx", ExportConfig(pixels=True, resize=48, softmax=True, top_k=5)
    export_quantized(checkpoint, path, opset_for(None, scheme))
    sign(path, RESNET, config)
    assert engine(path, "rtx-4090").header.bytes > 0
    assert lint(path, "tensorrt").clean


@pytest.mark.trt
@needs_rtx
def test_it_refuses_what_onnx_runtime_is_given(tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoint, _ = quantized(RESNET, tmp_path / "q", "tensorrt")
    ort = Checkpoint(checkpoint.path, RESNET, scheme="ort", scheme_options={"weight_bits": 7})
    prepared = prepare(build_model(RESNET), RESNET.input_shape, scheme_of(ort))
    calibrate(prepared, [torch.randn(8, *RESNET.input_shape)])
    save_file(state_of(prepared, torch.randn(2, *RESNET.input_shape)), ort.weights)
    export_quantized(ort, tmp_path / "ort.onnx", 18)
    with pytest.raises(
        BackendError, match="ort.onnx built nothing: .*INVALID_NODE|ort.onnx built nothing: .*zero point"
    ):
        engine(tmp_path / "ort.onnx", "rtx-3060")
