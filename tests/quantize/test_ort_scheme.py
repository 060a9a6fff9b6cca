"""The `ort` scheme on a small net: where Q/DQ goes, its arithmetic, and what ONNX Runtime makes of it."""

from copy import deepcopy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.errors import ModelError
from edgekd.export import export_fp32
from edgekd.models import build_model
from edgekd.quantize import convert, export_quantized, lint
from edgekd.quantize._fake import ActivationFakeQuantize, WeightFakeQuantize
from edgekd.quantize.graph import calibrate, prepare, state_of
from edgekd.quantize.schemes.ort import Ort

SPEC = ModelSpec("edgekd", "resnet8", 4, (3, 8, 8))


def calibrated(spec=SPEC, bits=7, edit=None):
    torch.manual_seed(0)
    model = build_model(spec)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.2, 0.2)
    if edit is not None:
        edit(model)
    prepared = prepare(model, spec.input_shape, Ort(bits))
    images = torch.randn(64, *spec.input_shape)
    calibrate(prepared, images.split(32))
    return model, prepared, images


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    out = tmp_path_factory.mktemp("ort")
    _, prepared, images = calibrated()
    save_file(state_of(prepared, images[:2]), out / "model.safetensors")
    checkpoint = Checkpoint(str(out), SPEC, scheme="ort", scheme_options={"weight_bits": 7})
    export_quantized(checkpoint, out / "int8.onnx", 18)
    return checkpoint, out / "int8.onnx", prepared, images


def test_every_conv_add_and_linear_is_quantized_and_the_logits_are_not():
    _, prepared, _ = calibrated()
    nodes = [node for node in prepared.graph.nodes if node.op == "call_function"]
    quantizers = dict(prepared.named_modules(remove_duplicate=False))
    for node in nodes:
        if "conv2d" in str(node.target) or "linear" in str(node.target):
            kinds = [type(quantizers[arg.target]) for arg in node.args[:2]]
            assert kinds == [ActivationFakeQuantize, WeightFakeQuantize], node
        if "add.Tensor" in str(node.target):
            assert all(type(quantizers[arg.target]) is ActivationFakeQuantize for arg in node.args), node
        if "relu" in str(node.target):  # Q/DQ after the ReLU, not between it and its convolution
            assert node.args[0].op == "call_function"
            assert [user.op for user in node.users] == ["call_module"]
    assert next(iter(nodes[-1].users)).op == "output"  # linear -> output, nothing between


def test_batch_norm_is_folded_and_counts_no_batches():
    _, prepared, _ = calibrated()
    assert not any("batch_norm" in str(node.target) for node in prepared.graph.nodes)


def test_the_fake_quantizers_have_the_bits_of_torch():
    _, prepared, _ = calibrated()
    for module in prepared.modules():
        if isinstance(module, ActivationFakeQuantize):
            x = torch.randn(5000) * module.scale * 100
            a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
            ours = module(a)
            ref = torch.fake_quantize_per_tensor_affine(b, module.scale, module.zero_point, 0, 255)
            assert torch.equal(ours, ref)
            ours.sum().backward()
            ref.sum().backward()
            assert torch.equal(a.grad, b.grad)


def test_what_trains_is_what_ships(exported):
    checkpoint, _, prepared, images = exported
    with torch.no_grad():
        assert torch.equal(prepared(images), convert(checkpoint)(images))


@pytest.mark.parametrize("bits", [7, 8])
def test_weights_stay_inside_their_bits_on_axis_0(bits):
    _, prepared, images = calibrated(bits=bits)
    prepared(images[:2])
    weights = [m for m in prepared.modules() if isinstance(m, WeightFakeQuantize)]
    assert len(weights) == 10
    assert all(m.quant_max == 2 ** (bits - 1) - 1 == -m.quant_min for m in weights)
    assert weights[0].scale.shape == (16,)
    assert not any(m.zero_point.any() for m in weights)


def test_onnx_runtime_executes_it_in_integers(exported):
    _, path, _, _ = exported
    report = lint(path)
    assert report.line == "9/9 convolutions INT8, 3/3 adds, 1/1 linear layers, 0 float islands"
    assert report.ok, report.problems


def test_the_file_stores_seven_bit_integers_and_no_paths(exported):
    _, path, _, _ = exported
    stored = [
        numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.data_type == onnx.TensorProto.INT8
    ]
    kernels = [array for array in stored if array.ndim > 1]
    assert len(kernels) == 10
    assert all(np.abs(array).max() == 63 for array in kernels)
    assert b"/site-packages" not in path.read_bytes() and b".py" not in path.read_bytes()


def test_export_gives_the_same_bytes_twice(exported, tmp_path):
    checkpoint, path, _, _ = exported
    torch.manual_seed(123)  # nothing random is left in it
    export_quantized(checkpoint, tmp_path / "again.onnx", 18)
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_a_dead_channel_with_a_large_bias_survives(tmp_path):
    """A zero BatchNorm gamma folds to a zero kernel: its scale must be finite and its int32 bias must not overflow."""
    import onnxruntime

    def kill(model):
        model.bn1.weight.data[3] = 0.0
        model.bn1.bias.data[3] = 20.0

    model, prepared, images = calibrated(edit=kill)
    save_file(state_of(prepared, images[:2]), tmp_path / "model.safetensors")
    checkpoint = Checkpoint(str(tmp_path), SPEC, scheme="ort", scheme_options={"weight_bits": 7})
    export_quantized(checkpoint, tmp_path / "int8.onnx", 18)
    session = onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images).numpy()
    assert np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()


def test_pad_shortcuts_do_not_crash_and_keep_every_conv_in_integers(tmp_path):
    spec = ModelSpec("edgekd", "resnet8", 4, (3, 8, 8), {"shortcut": "A"})
    _, prepared, images = calibrated(spec)
    save_file(state_of(prepared, images[:2]), tmp_path / "model.safetensors")
    checkpoint = Checkpoint(str(tmp_path), spec, scheme="ort", scheme_options={"weight_bits": 7})
    export_quantized(checkpoint, tmp_path / "int8.onnx", 18)
    assert lint(tmp_path / "int8.onnx").line.startswith("7/7 convolutions INT8, 3/3 adds, 1/1 linear layers")


def test_a_float_checkpoint_is_refused(exported):
    checkpoint, _, _, _ = exported
    with pytest.raises(ModelError, match="Name a checkpoint that quantize wrote"):
        convert(Checkpoint(checkpoint.path, SPEC))


def test_weights_of_another_model_are_refused(exported):
    checkpoint, _, _, _ = exported
    other = ModelSpec("edgekd", "resnet8", 7, (3, 8, 8))
    with pytest.raises(ModelError, match="does not fit resnet8"):
        convert(Checkpoint(checkpoint.path, other, scheme="ort", scheme_options={"weight_bits": 7}))


def test_a_model_that_cannot_be_traced_is_named_with_its_line():
    class Branches(torch.nn.Module):
        def forward(self, x):
            return x * 2 if x.sum().item() > 0 else x

    with pytest.raises(ModelError, match=r"(?s)Branches cannot be traced.*test_ort_scheme\.py:\d+: return x \* 2 if"):
        prepare(Branches(), (3, 8, 8), Ort(7))


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "stride", "filled"),
    [
        (3, 16, 3, 1, 4),
        (1, 16, 3, 1, 4),
        (6, 32, 3, 2, 8),
        (4, 16, 3, 1, 4),  # as many as wanted
        (3, 12, 3, 1, 3),  # no direct kernel
        (3, 16, 4, 4, 3),  # patches
        (3, 16, 1, 1, 3),
    ],
)
def test_channels_of_an_image_are_filled_up_and_nothing_else_changes(
    tmp_path, monkeypatch, channels, out, kernel, stride, filled
):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(channels, out, kernel, stride), torch.nn.ReLU(), torch.nn.Conv2d(out, 5, 1)
    )
    images = torch.randn(8, channels, 16, 16)
    prepared = prepare(net.eval(), (channels, 16, 16), Ort(7))
    calibrate(prepared, [images])
    graphs = {name: tmp_path / f"{name}.onnx" for name in ("padded", "plain")}
    for name, path in graphs.items():
        if name == "plain":
            monkeypatch.setattr("edgekd.quantize.schemes.ort.pad_channels", lambda model: None)
        scheme = Ort(7)
        export_fp32(scheme.convert(deepcopy(prepared)), path, (channels, 16, 16), 18, finish=scheme.finish)
    model = onnx.load(graphs["padded"])
    onnx.checker.check_model(model, full_check=True)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    weights = next(node for node in model.graph.node if conv.input[1] in node.output).input[0]
    assert shapes[weights][1] == filled
    assert [node.op_type for node in model.graph.node].count("Pad") == (filled != channels)
    assert tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]) == (channels, 16, 16)
    found = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images[:n].numpy()})
        for path in map(str, graphs.values())
        for n in (1, 8)
    ]
    assert np.array_equal(found[0][0], found[2][0]) and np.array_equal(found[1][0], found[3][0])
    assert not lint(graphs["padded"]).problems
