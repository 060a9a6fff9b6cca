from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.artifacts import ModelSpec, OnnxModel
from edgekd.export import export_fp32
from edgekd.models import build_model
from edgekd.profile.blocks import OTHER, UNKNOWN, block_of, modules, place, totals
from edgekd.profile.device import Device
from edgekd.profile.latency import Options, measure_with


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    path = tmp_path_factory.mktemp("student") / "student.onnx"
    spec = ModelSpec("edgekd", "resnet8", 10, (3, 16, 16))
    export_fp32(build_model(spec), path, spec.input_shape, 18)
    return OnnxModel(str(path), "onnx-fp32", "fp32", 18, spec.input_shape)


@pytest.mark.parametrize(
    ("module", "block"),
    [
        ("layer2.0.downsample.0", "layer2.0"),
        ("blocks.3.attn.qkv", "blocks.3"),
        ("blocks.1.0.conv_pw", "blocks.1.0"),
        ("stages.0.blocks.1.conv_dw", "stages.0.blocks.1"),
        ("stem.conv", "stem"),
        ("conv1", "conv1"),
        ("fc", "fc"),
    ],
)
def test_a_block_is_a_module_up_to_its_last_number(module: str, block: str) -> None:
    assert block_of(module) == block


def test_every_node_has_a_module(student: OnnxModel) -> None:
    import onnx

    found = modules(Path(student.path))
    graph = onnx.load(student.path).graph
    assert {node.name for node in graph.node} <= set(found)
    assert {block_of(module) for module in found.values()} == {"conv1", "layer1.0", "layer2.0", "layer3.0", "fc"}
    additions = [found[node.name] for node in graph.node if node.op_type == "Add"]
    assert [block_of(module) for module in additions] == ["layer1.0", "layer2.0", "layer3.0"]


def test_what_onnx_runtime_really_runs_is_brought_back(student: OnnxModel, device: Device) -> None:
    (report,) = measure_with(Options(runs=20, warmup=1, per_layer=True), [student], device)
    row = report.summary()
    named = [block["block"] for block in row["blocks"] if block["block"] != OTHER]
    assert named == ["conv1", "layer1.0", "layer2.0", "layer3.0", "fc"]
    assert sum(block["share"] for block in row["blocks"]) == pytest.approx(1)
    assert sum(block["layers"] for block in row["blocks"]) == len(row["layers"])
    assert all(layer["provider"] == "CPUExecutionProvider" and layer["ms"] >= 0 for layer in row["layers"])


def test_tensorrts_names_list_the_nodes_of_a_layer(student: OnnxModel) -> None:
    import onnx

    convs = [node.name for node in onnx.load(student.path).graph.node if node.op_type == "Conv"]
    names = [
        f"{convs[0]} + node_relu",
        f"PWN({convs[1]}, node_relu_1)",
        f"{{ForeignNode[{convs[1]}...{convs[3]}]}}",
        "Reformatting CopyNode for Input Tensor 0 to images_cast",
    ]
    layers = place([{"name": name, "op": None, "provider": "TensorRT", "ms": 1.0} for name in names], student)
    assert [layer["block"] for layer in layers] == ["conv1", "layer1.0", "layer1.0 … layer2.0", OTHER]
    assert [row["share"] for row in totals(layers)] == [0.25] * 4


def test_an_engine_alone_does_not_say(student: OnnxModel) -> None:
    engine = OnnxModel("student.engine", "engine", "fp32", 18, (3, 16, 16))
    (layer,) = place([{"name": "node_Conv_1", "op": None, "provider": "TensorRT", "ms": 0.5}], engine)
    assert layer["block"] == UNKNOWN and layer["share"] == 1
