"""The export stage: three graphs that compute what their checkpoints compute, and the errors when one does not."""

import json

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from edgekd.artifacts import Checkpoint, ModelSpec, OnnxModel
from edgekd.config import ExportConfig
from edgekd.data.dataset import Dataset, Split
from edgekd.errors import ParityError
from edgekd.export import export, export_fp32, parity
from edgekd.models import build_model
from edgekd.profile import load_device
from edgekd.progress import NullProgress
from edgekd.quantize.graph import calibrate, prepare, state_of
from edgekd.quantize.schemes.ort import Ort

STATISTICS = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
SPEC = ModelSpec("edgekd", "resnet8", 4, (3, 8, 8), **STATISTICS)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    splits = [Split(rng.integers(0, 256, (n, 8, 8, 3), np.uint8), rng.integers(0, 4, n)) for n in (8, 300, 8)]
    return Dataset("noise", tuple("abcd"), *splits, *STATISTICS.values(), True, "digest")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """(student, quantized): a random network whose decisions are not close, and its INT8 version."""
    student, quantized = tmp_path_factory.mktemp("student"), tmp_path_factory.mktemp("quantized")
    torch.manual_seed(0)
    model = build_model(SPEC).train()
    images = torch.rand(64, 3, 8, 8) * 4 - 2
    with torch.no_grad():
        model(images)
        model.fc.bias.copy_(torch.tensor([3.0, 0.0, 0.0, 0.0]))
    save_file(model.state_dict(), student / "model.safetensors")
    prepared = prepare(model, SPEC.input_shape, Ort(7))
    calibrate(prepared, [images])
    save_file(state_of(prepared, images[:2]), quantized / "model.safetensors")
    return Checkpoint(str(student), SPEC), Checkpoint(
        str(quantized), SPEC, scheme="ort", scheme_options={"weight_bits": 7}
    )


def run(out, data, checkpoints):
    student, quantized = checkpoints
    teacher = ModelSpec(**{**SPEC.__dict__, "weights": str(student.weights)})
    return export(
        out, teacher=teacher, student=student, quantized=quantized, data=data, taken=data,
        device=load_device("x86-cpu"),
        config=ExportConfig(), progress=NullProgress(),
    )  # fmt: skip


def test_three_graphs_with_their_records(tmp_path, data, checkpoints, capfd):
    models = run(tmp_path, data, checkpoints)
    assert [(m.artifact, m.precision) for m in models] == [
        ("teacher", "fp32"), ("onnx-fp32", "fp32"), ("onnx-int8", "int8")
    ]  # fmt: skip
    assert {file.name for file in tmp_path.iterdir()} == {
        *("teacher.onnx", "student-fp32.onnx", "student-int8.onnx", "export.json")
    }
    records = json.loads((tmp_path / "export.json").read_text())
    assert [r["path"] for r in records] == ["teacher.onnx", "student-fp32.onnx", "student-int8.onnx"]
    assert all(OnnxModel.from_json(r).parity["n"] == 256 for r in records)
    assert records[0]["parity"]["max_rel_error"] < 1e-4
    assert records[2]["parity"]["top1_agreement"] >= 0.98
    assert records[2]["lint"]["ok"]
    out, err = capfd.readouterr()
    assert out == "" and err == ""  # the exporter says nothing


def test_a_graph_that_computes_something_else_is_refused(tmp_path, data, checkpoints, monkeypatch):
    import edgekd.export as stage

    real = stage.predict
    monkeypatch.setattr(stage, "predict", lambda *args, **kwargs: real(*args, **kwargs) + 0.5)
    with pytest.raises(ParityError, match="teacher.onnx does not compute what its checkpoint computes"):
        run(tmp_path, data, checkpoints)


def test_signature_dynamic_batch_and_the_same_bytes_without_paths(tmp_path):
    import onnxruntime

    model = build_model(ModelSpec("edgekd", "resnet8", 5, (1, 12, 8)))
    for name in ("a.onnx", "b.onnx"):
        export_fp32(model, tmp_path / name, (1, 12, 8), 18)
    content = (tmp_path / "a.onnx").read_bytes()
    assert content == (tmp_path / "b.onnx").read_bytes()
    assert b".py" not in content
    assert {file.name for file in tmp_path.iterdir()} == {"a.onnx", "b.onnx"}  # no weights beside the graph
    graph = onnx.load(tmp_path / "a.onnx")
    assert [v.name for v in graph.graph.input] == ["images"] and [v.name for v in graph.graph.output] == ["logits"]
    assert graph.opset_import[0].version == 18
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    for batch in (1, 7):
        images = torch.randn(batch, 1, 12, 8)
        (logits,) = session.run(None, {"images": images.numpy()})
        assert np.abs(logits - model(images).detach().numpy()).max() < 1e-4


@pytest.mark.parametrize(("precision", "noise"), [("fp32", 0.05), ("int8", 3.0)])
def test_parity_refuses_what_is_too_far(tmp_path, precision, noise):
    logits = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    assert parity.check(tmp_path / "m.onnx", precision, logits, logits)["max_abs_error"] == 0
    with pytest.raises(ParityError):
        parity.check(tmp_path / "m.onnx", precision, logits + noise * np.roll(logits, 1, 1), logits)
    with pytest.raises(ParityError):
        parity.check(tmp_path / "m.onnx", precision, np.where(logits > 2, np.nan, logits).astype(np.float32), logits)
