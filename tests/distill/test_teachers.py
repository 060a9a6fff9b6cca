"""Several teachers, teachers in ONNX files, teachers of another input size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.artifacts import ModelSpec
from edgekd.catalog import METHODS
from edgekd.config import DistillConfig, TeacherConfig, load_config
from edgekd.data import Dataset, load_dataset
from edgekd.distill import distill, teachers
from edgekd.distill.methods._base import Batch, Outputs
from edgekd.distill.targets import LiveTargets
from edgekd.distill.teachers import Ensemble, Export, confidence, live_targets
from edgekd.errors import ConfigError, ModelError
from edgekd.export.onnx import export_fp32
from edgekd.models import build_model, build_random, cost, resolve_teacher
from edgekd.models.onnx import OnnxNetwork
from edgekd.progress import NullProgress

CPU = torch.device("cpu")
KD = METHODS["kd"]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def files(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One random resnet8 as weights and as ONNX, at the data's size and at 16 pixels."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("teachers")
    net = build_random(ModelSpec("edgekd", "resnet8", 10, data.input_shape), 1)
    paths = {"torch": folder / "net.safetensors", "onnx": folder / "net.onnx", "large": folder / "large.onnx"}
    save_file(net.state_dict(), paths["torch"])
    export_fp32(net, paths["onnx"], (1, 8, 8), 18)
    export_fp32(net, paths["large"], (1, 16, 16), 18)
    return paths


def resolved(data: Dataset, path: Path, **options: Any) -> ModelSpec:
    arch = {} if path.suffix == ".onnx" else {"arch": "resnet8"}
    return resolve_teacher(TeacherConfig(source=f"file:{path}", **arch, **options), data)


def fixed(*logits: list[float]) -> LiveTargets:
    return LiveTargets(lambda images: Outputs(torch.tensor(logits)), (0.5,), (0.5,))


def batch(*labels: int, **mixed: Any) -> Batch:
    n = len(labels)
    return Batch(np.zeros((n, 8, 8, 1), np.uint8), torch.tensor(labels), np.arange(n), 0, **mixed)


def test_mean_and_weighted_mean() -> None:
    two = [fixed([1.0, 3.0]), fixed([5.0, -1.0])]
    assert Ensemble(two, None, False)(batch(0)).logits.tolist() == [[3.0, 1.0]]
    assert Ensemble(two, (3.0, 1.0), False)(batch(0)).logits.tolist() == [[2.0, 2.0]]


def test_confidence_by_hand() -> None:
    """Cross-entropies log 2 and log 4 have exponentials 2 and 4: weights 1 - 2/6 and 1 - 4/6."""
    logits = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]]).log()
    assert torch.allclose(confidence(logits, batch(0)), torch.tensor([[2 / 3], [1 / 3]]))
    mixed = confidence(logits, batch(0, partners=torch.tensor([1]), mix=0.5))
    losses = np.array([np.log(2), (np.log(4) + np.log(4 / 3)) / 2])
    assert mixed[:, 0].tolist() == pytest.approx((1 - np.exp(losses) / np.exp(losses).sum()).tolist())
    three = torch.randn(3, 5, 4)
    assert torch.allclose(confidence(three, batch(0, 1, 2, 3, 0)).sum(0), torch.ones(5))


def test_the_confident_ensemble_follows_who_knows_the_label() -> None:
    two = [fixed([9.0, 0.0], [9.0, 0.0]), fixed([0.0, 9.0], [0.0, 9.0])]
    rows = Ensemble(two, None, True)(batch(0, 1)).logits
    assert rows[0].argmax() == 0 and rows[1].argmax() == 1


def test_an_onnx_file_is_a_teacher(data: Dataset, files: dict[str, Path]) -> None:
    spec, same = resolved(data, files["onnx"]), resolved(data, files["torch"])
    assert (spec.source, spec.name, spec.mean) == ("onnx", "net", data.mean)
    images = torch.randn(5, *data.input_shape)
    net = build_model(spec)
    assert torch.allclose(net(images), build_model(same)(images), atol=1e-5)
    found, expected = cost(net, data.input_shape), cost(build_model(same), data.input_shape)
    assert found.macs == expected.macs
    assert 0.95 < found.params / expected.params < 1  # BatchNorm is folded


def test_bad_onnx_files(data: Dataset, files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gone.onnx does not exist"):
        resolved(data, tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(ModelError, match="cannot load text.onnx"):
        resolved(data, tmp_path / "text.onnx")
    with pytest.raises(ModelError, match=r"takes images \(1, 16, 16\), the data's are \(1, 8, 8\)(?s:.*)image_size"):
        resolved(data, files["large"])
    export_fp32(torch.nn.Flatten(), tmp_path / "wide.onnx", (1, 8, 8), 18)
    with pytest.raises(ModelError, match="64 classes, the data has 10"):
        resolved(data, tmp_path / "wide.onnx")


def test_a_teacher_of_another_size_sees_the_view_resized(data: Dataset, files: dict[str, Path]) -> None:
    images = torch.randn(3, 1, 8, 8)
    for path in (files["torch"], files["large"]):
        spec = resolved(data, path, image_size=16)
        assert spec.input_shape == (1, 8, 8) and spec.resize == 16
        inner = build_model(replace(resolved(data, files["torch"]), resize=None))
        larger = torch.nn.functional.interpolate(images, size=(16, 16), mode="bilinear")
        assert torch.allclose(build_model(spec)(images), inner(larger), atol=1e-5)


def test_features_come_of_one_torch_teacher(data: Dataset, files: dict[str, Path]) -> None:
    row = replace(KD, name="regress", needs=("features",))
    one, onnx = resolved(data, files["torch"]), resolved(data, files["onnx"])
    targets, side = live_targets([replace(one, resize=16)], row, DistillConfig(), CPU, None)
    assert side is not None and list(side.shapes.values()) == [(16, 16, 16), (32, 8, 8), (64, 4, 4)]
    outputs = targets(batch(0, 1))
    assert outputs.features is not None and outputs.features["layer3"].shape == (2, 64, 4, 4)
    assert not outputs.logits.requires_grad
    for specs, message in (([one, one], "2 teachers give logits only"), ([onnx], "net is an ONNX file")):
        with pytest.raises(ConfigError, match=f"regress needs the teacher's features, and {message}"):
            live_targets(specs, row, DistillConfig(), CPU, None)
    with pytest.raises(ConfigError, match="distill.weights: 3 weights for 2 teachers"):
        live_targets([one, one], KD, DistillConfig(weights=(1, 2, 3)), CPU, None)


def test_a_long_pass_runs_in_onnx_runtime(
    data: Dataset, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, seen = resolved(data, files["torch"]), batch(3, 1)
    plain, _ = live_targets([spec], KD, DistillConfig(), CPU, Export(tmp_path / "r", 100, NullProgress()))
    assert not (tmp_path / "r").exists()
    monkeypatch.setattr(teachers, "WORTH_EXPORTING", 1)
    made: list[OnnxNetwork] = []
    monkeypatch.setattr(teachers, "OnnxNetwork", lambda *a: made.append(OnnxNetwork(*a)) or made[-1])
    exported, _ = live_targets([spec], KD, DistillConfig(), CPU, Export(tmp_path / "r", 100, NullProgress()))
    assert len(made) == 1 and torch.allclose(exported(seen).logits, plain(seen).logits, atol=1e-5)

    class Stubborn(torch.nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input.flatten(1)[:, : 2 if input.sum() > -1e9 else 1])

    said: list[str] = []
    progress = NullProgress()
    progress.note = said.append  # type: ignore[method-assign]
    net = Stubborn(2, 2)
    assert Export(tmp_path / "s", 100, progress).run(net, replace(spec, name="stubborn", kwargs={"x": 1})) is net
    assert "stubborn runs in torch, its ONNX export failed" in said[0]


def test_two_teachers_teach_one_student(data: Dataset, files: dict[str, Path], tmp_path: Path) -> None:
    specs = [resolved(data, files["torch"]), resolved(data, files["large"], image_size=16)]
    student = ModelSpec("edgekd", "cifar-resnet", 10, data.input_shape, {"depths": (1, 1, 1), "widths": (8, 8, 8)})
    losses = []
    for targets in ("live", "replay"):
        out = tmp_path / targets
        out.mkdir()
        config = DistillConfig(epochs=1, batch_size=64, views=1, lr=0.003, targets=targets, ensemble="confidence")
        arguments = {"teacher": specs[0], "others": specs[1:], "student": student, "data": data}
        distill(out, **arguments, config=config, seed=0, progress=NullProgress())
        losses.append(json.loads((out / "history.json").read_text())[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0] != losses[1]


def test_in_a_config(tmp_path: Path, files: dict[str, Path]) -> None:
    folder = files["onnx"].parent
    (folder / "run.yaml").write_text(
        "data: digits\ntarget: x86-cpu\nteacher:\n- {source: 'file:net.safetensors', arch: resnet8}\n- file:net.onnx\n"
    )
    config = load_config(folder / "run.yaml")
    assert config.teacher.source == f"file:{files['torch']}" and config.teacher.arch == "resnet8"
    assert [teacher.source for teacher in config.teachers] == [f"file:{files['onnx']}"]
    with pytest.raises(ConfigError, match="unknown key teachers.0.sourc\nDid you mean source"):
        load_config(None, ["data=digits", "target=x86-cpu", "teachers=[{sourc: x}]"])


def test_the_funmatch_recipe_sets_what_is_not_set() -> None:
    config = DistillConfig.model_validate({"recipe": "funmatch", "mixup": 0.5})
    assert config.method == {"kd": {"temperature": 1.0, "alpha": 1.0}}
    assert (config.mixup, config.targets) == (0.5, "live")
    assert DistillConfig.model_validate(config.model_dump()) == config
