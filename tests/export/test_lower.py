"""Opsets 13 and 17 from 18: the same numbers, operators that TensorRT 8 has, an error that names what has no form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.errors import ConfigError, ParityError
from edgekd.export import export_fp32
from edgekd.export.lower import lower, prove
from edgekd.models import build_model
from edgekd.profile.backends.ort_cpu import OrtCpuSession
from edgekd.quantize import export_quantized, lint
from edgekd.quantize.graph import calibrate, prepare, state_of
from edgekd.quantize.schemes.tensorrt import TensorRt

VIT = {"img_size": 32, "patch_size": 4, "depth": 1, "embed_dim": 32, "num_heads": 2}
NETS = {
    "resnet": ModelSpec("edgekd", "resnet8", 4, (3, 8, 8)),
    "hard swish": ModelSpec("timm", "mobilenetv3_small_050", 4, (3, 32, 32)),
    "layer normalisation": ModelSpec("timm", "vit_tiny_patch16_224", 4, (3, 32, 32), VIT),
}
LATER = {"HardSwish", "LayerNormalization"}  # that TensorRT 8.5 does not parse, whatever the opset


def logits(path: Path, images: Any) -> Any:
    return next(iter(OrtCpuSession(str(path), 1, optimised=False).infer({"images": images}).values()))


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("name", NETS)
def test_the_same_numbers_in_an_older_opset(name: str, opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = NETS[name]
    model = build_model(spec)
    export_fp32(model, tmp_path / "new.onnx", spec.input_shape, 18)
    export_fp32(model, tmp_path / "old.onnx", spec.input_shape, opset)
    old = onnx.load(tmp_path / "old.onnx")
    onnx.checker.check_model(old, full_check=True)
    assert old.opset_import[0].version == opset
    assert not LATER & {node.op_type for node in old.graph.node}
    assert [v.name for v in (*old.graph.input, *old.graph.output)] == ["images", "logits"]
    for batch in (1, 3, 64):
        images = np.random.default_rng(batch).standard_normal((batch, *spec.input_shape)).astype(np.float32)
        new, found = logits(tmp_path / "new.onnx", images), logits(tmp_path / "old.onnx", images)
        assert found.shape == (batch, 4) and np.abs(found - new).max() < 1e-5


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    out, spec = tmp_path_factory.mktemp("quantized"), NETS["resnet"]
    torch.manual_seed(0)
    images = torch.randn(16, *spec.input_shape)
    prepared = prepare(build_model(spec), spec.input_shape, TensorRt())
    calibrate(prepared, [images])
    save_file(state_of(prepared, images[:2]), out / "model.safetensors")
    return Checkpoint(str(out), spec, scheme="tensorrt")


@pytest.mark.parametrize("opset", [13, 17])
def test_tensorrt_8_gets_no_int8_constants(opset: int, quantized: Checkpoint, tmp_path: Path) -> None:
    export_quantized(quantized, tmp_path / "new.onnx", 18)
    export_quantized(quantized, tmp_path / "old.onnx", opset)
    old = onnx.load(tmp_path / "old.onnx")
    zero_points = {n.input[2] for n in old.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
    assert {t.name for t in old.graph.initializer if t.data_type == TensorProto.INT8} == zero_points
    images = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    assert np.array_equal(logits(tmp_path / "new.onnx", images), logits(tmp_path / "old.onnx", images))
    assert lint(tmp_path / "old.onnx", "tensorrt").clean
    onnx_runtime = lint(tmp_path / "old.onnx", "onnxruntime")
    assert any("stored as float" in problem for problem in onnx_runtime.problems)


def graph(*nodes: Any, constants: dict[str, Any] | None = None, shape: tuple[Any, ...] = ("batch", 4)) -> Any:
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "logits")]
    tensors = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    made = helper.make_graph(list(nodes), "g", io[:1], io[1:], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (helper.make_node("Trilu", ["images"], ["logits"], "tri"), {}),
        (helper.make_node("Split", ["images"], ["logits", "rest"], "halves", num_outputs=2), {}),
        (
            helper.make_node("Reshape", ["images", "shape"], ["logits"], "flat", allowzero=1),
            {"shape": np.array([0, 4], np.int64)},
        ),
        (helper.make_node("ReduceMean", ["images", "images"], ["logits"], "mean"), {}),
        (helper.make_node("LayerNormalization", ["images", "images"], ["logits"], "norm", axis=1), {}),
    ],
    ids=lambda value: getattr(value, "op_type", None),
)
def test_an_operator_without_an_older_form_is_named(node: Any, constants: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"export.opset: 13, and {node.op_type} \({node.name}\)"):
        lower(graph(node, constants=constants), 13)


def test_what_says_nothing_new_goes() -> None:
    reshape = helper.make_node("Reshape", ["images", "shape"], ["logits"], "flat", allowzero=1)
    model = graph(reshape, constants={"shape": np.array([-1, 4], np.int64), "unread": np.zeros(1, np.float32)})
    lower(model, 13)
    onnx.checker.check_model(model, full_check=True)
    assert not model.graph.node[0].attribute and [t.name for t in model.graph.initializer] == ["shape"]
    assert model.ir_version == 7


def test_other_numbers_are_refused(tmp_path: Path) -> None:
    shape = ("batch", 3, 8, 8)
    for name, op in (("a", "Relu"), ("b", "Sigmoid")):
        onnx.save(graph(helper.make_node(op, ["images"], ["logits"]), shape=shape), tmp_path / f"{name}.onnx")
    prove(tmp_path / "a.onnx", tmp_path / "a.onnx", (3, 8, 8))
    with pytest.raises(ParityError, match=r"a.onnx computes something else in its older opset"):
        prove(tmp_path / "a.onnx", tmp_path / "b.onnx", (3, 8, 8))
