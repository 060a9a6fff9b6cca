"""The lint must see what goes wrong: each test plants one fault in a Q/DQ graph that is otherwise sound."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from qdq_graphs import residual
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.errors import BackendError
from edgekd.quantize.lint import lint
from edgekd.quantize.lint.rules import findings


def graph(tmp_path, *, float_second=False, per_tensor=False, zero_point=0, scale=0.02, island=False):
    """images [batch, 3, 8, 8] -> Q/DQ conv -> Q/DQ (Sigmoid) -> Q/DQ conv -> logits [batch, 4, 8, 8]."""
    rng = np.random.default_rng(0)
    constants, nodes = {}, []

    def put(name, array):
        constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def qdq(x, step=0.05):
        inputs = [put(f"{x}_scale", np.float32(step)), put(f"{x}_zero", np.uint8(128))]
        nodes.append(helper.make_node("QuantizeLinear", [x, *inputs], [f"{x}_q"], name=f"q_{x}"))
        nodes.append(helper.make_node("DequantizeLinear", [f"{x}_q", *inputs], [f"{x}_dq"], name=f"dq_{x}"))
        return f"{x}_dq"

    def conv(x, c_in, name, quantized=True):
        weight = put(f"{name}_w", rng.integers(-63, 64, (4, c_in, 3, 3)).astype(np.int8))
        if quantized:
            scales = np.float32(scale) if per_tensor else np.full(4, scale, np.float32)
            zeros = np.int8(zero_point) if per_tensor else np.full(4, zero_point, np.int8)
            inputs = [weight, put(f"{name}_s", scales), put(f"{name}_z", zeros)]
            axis = {} if per_tensor else {"axis": 0}
            nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_wdq"], name=f"dqw_{name}", **axis))
            weight = f"{name}_wdq"
        else:
            weight = put(f"{name}_wf", rng.standard_normal((4, c_in, 3, 3)).astype(np.float32))
        nodes.append(helper.make_node("Conv", [x, weight], [name], name=name, pads=[1] * 4))
        return name

    x = qdq(conv(qdq("images"), 3, "conv_1"))
    if island:
        nodes.append(helper.make_node("Elu", [x], ["elu"], name="elu"))
        nodes.append(helper.make_node("Softplus", ["elu"], ["softplus"], name="softplus"))
        x = qdq("softplus")
    if float_second:
        nodes.append(helper.make_node("Elu", [x], ["elu"], name="elu"))
        x = "elu"
    y = qdq(conv(x, 4, "conv_2", quantized=not float_second))
    nodes.append(helper.make_node("Identity", [y], ["logits"]))
    io = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", c, 8, 8])
        for n, c in (("images", 3), ("logits", 4))
    ]
    used = {name for node in nodes for name in node.input}
    body = helper.make_graph(nodes, "g", io[:1], io[1:], [t for name, t in constants.items() if name in used])
    path = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_sound_graph_passes(tmp_path):
    report = lint(graph(tmp_path))
    assert report.ok
    assert report.conv == (2, 2)
    assert report.line == "2/2 convolutions INT8, 0 float islands"
    assert report.to_json()["conv"] == [2, 2]


def test_a_float_conv_is_seen_in_the_export_and_in_the_execution(tmp_path):
    report = lint(graph(tmp_path, float_second=True))
    assert not report.ok
    assert report.conv == (1, 2)
    assert not report.problems  # a layer may be left in float; that it is, the counts say
    assert len(report.float_islands) == 1 and report.float_islands[0].startswith("Elu+Conv")


def test_per_tensor_weights_are_seen(tmp_path):
    report = lint(graph(tmp_path, per_tensor=True))
    assert [problem.split(":")[0] for problem in report.problems] == ["conv_1", "conv_2"]
    assert "not one for each of 4 output channels" in report.problems[0]


def test_a_weight_zero_point_is_seen(tmp_path):
    assert "zero point that is not 0" in lint(graph(tmp_path, zero_point=1)).problems[0]


@pytest.mark.parametrize("scale", [0.0, np.nan])
def test_a_broken_scale_is_seen(tmp_path, scale):
    assert any("a scale is" in problem for problem in lint(graph(tmp_path, scale=scale)).problems)


def test_connected_float_operators_are_one_island(tmp_path):
    report = lint(graph(tmp_path, island=True))
    assert report.float_islands == ("Elu+Softplus",)
    assert not report.ok


def test_a_graph_that_onnx_runtime_refuses(tmp_path):
    path = graph(tmp_path)
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, path)
    with pytest.raises(BackendError, match="ONNX Runtime refused"):
        lint(path)


FAULTS = [
    "scale",
    "weight zero point",
    "activation zero point",
    "granularity",
    "activation granularity",
    "axis",
    "stored weights",
    "int32 bias",
    "between fused",
    "cast",
    "float input",
    "addition",
    "float skip",
    "concatenation",
]


def test_nvidias_style_passes(tmp_path):
    report = lint(residual(tmp_path / "good.onnx"), "tensorrt")
    assert report.ok, report.problems
    assert (report.conv, report.add) == ((3, 3), (1, 1))


def test_a_concatenation_of_floats_requantizes_nothing(tmp_path):
    path = residual(tmp_path / "floats.onnx", "concatenation")
    model = onnx.load(path)
    (concat,) = (node for node in model.graph.node if node.op_type == "Concat")
    (reader,) = (node for node in model.graph.node if concat.output[0] in node.input)
    assert reader.op_type == "QuantizeLinear"
    for op, faults in (("MaxPool", 1), ("Elu", 0)):
        between = helper.make_node(op, [concat.output[0]], [op], **({"kernel_shape": [1, 1]} if faults else {}))
        reader.input[0] = op
        changed = onnx.ModelProto.FromString(model.SerializeToString())
        changed.graph.node.insert(list(model.graph.node).index(reader), between)
        assert [f.rule for f in findings(changed, "tensorrt")] == ["concatenation"] * faults


@pytest.mark.parametrize("fault", FAULTS)
def test_each_planted_fault_is_found_and_no_other(fault, tmp_path):
    path = residual(tmp_path / "bad.onnx", fault)
    rule = {"activation granularity": "granularity", "float skip": "addition"}.get(fault, fault)
    found = findings(onnx.load(path), "tensorrt")
    assert {finding.rule for finding in found} == {rule}, [str(f) for f in found]
    assert not lint(path, "tensorrt").ok


def test_lint_says_what_is_wrong_and_ends_with_1(tmp_path):
    def run(path, *options):
        return CliRunner().invoke(app, ["lint", str(path), *options])

    good, bad = residual(tmp_path / "good.onnx"), residual(tmp_path / "bad.onnx", "granularity")
    done = run(good, "--target", "rtx-3080", "--no-build")
    assert done.exit_code == 0 and "3/3 convolutions INT8" in done.output and "nothing is wrong" in done.output
    done = run(bad, "--target", "rtx-3080", "--no-build", "--json")
    assert done.exit_code == 1
    record = json.loads(done.stdout)
    assert not record["clean"] and "conv_2: weights have 1 scales" in record["problems"][0]
    assert record["builder"] == {"skipped": "--no-build"}
