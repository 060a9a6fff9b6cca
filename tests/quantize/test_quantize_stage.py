"""The quantize stage on 8x8 images: what it writes, resuming inside an epoch, and which of PTQ and QAD it keeps."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

import edgekd.quantize as stage
from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.config import QadConfig, QuantizeConfig
from edgekd.data.dataset import Dataset, Split
from edgekd.errors import ConfigError, RunError
from edgekd.models import build_model
from edgekd.profile import load_device
from edgekd.profile.machine import has_vnni
from edgekd.progress import NullProgress
from edgekd.quantize import mixed, quantize
from edgekd.quantize import qad as training
from edgekd.quantize._judge import Judge
from edgekd.quantize.graph import calibrate, prepare
from edgekd.quantize.qad import gradient_scales
from edgekd.quantize.schemes import ort

STATISTICS = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
SPEC = ModelSpec("edgekd", "resnet8", 4, (3, 8, 8), **STATISTICS)


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)

    def split(n):
        return Split(rng.integers(0, 256, (n, 8, 8, 3), np.uint8), rng.integers(0, 4, n))

    return Dataset("noise", tuple("abcd"), split(96), split(40), split(8), *STATISTICS.values(), True, "digest")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(student checkpoint, teacher spec): random networks, with BatchNorm statistics of their own."""
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        out = tmp_path_factory.mktemp("model")
        model = build_model(SPEC).train()
        with torch.no_grad():
            model(torch.randn(64, 3, 8, 8))
        save_file(model.state_dict(), out / "model.safetensors")
        made.append(out)
    teacher = ModelSpec(**{**SPEC.__dict__, "weights": str(made[1] / "model.safetensors"), "mean": (0.4, 0.4, 0.4)})
    return Checkpoint(str(made[0]), SPEC), teacher


def run(out, data, models, config):
    out.mkdir(exist_ok=True)
    student, teacher = models
    device = load_device("x86-cpu")
    return quantize(
        out, student=student, teacher=teacher, data=data, device=device, config=config, seed=3, opset=18,
        progress=NullProgress(),
    )  # fmt: skip


def config(epochs, **options):
    return QuantizeConfig(
        calibration=32, qad=QadConfig(**{"epochs": epochs, "batch_size": 16, "lr": 0.002, "tolerance": None, **options})
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, data, models):
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    return run(out, data, models, config(1.5)), out


def test_what_the_stage_writes(unbroken):
    checkpoint, out = unbroken
    record = json.loads((out / "quantize.json").read_text())
    assert record["chosen"] in ("ptq", "qad")
    assert record["qad"]["steps"] == 9  # a fraction of an epoch counts
    assert record["weight_bits"] == checkpoint.scheme_options["weight_bits"]
    assert {file.name for file in out.iterdir()} == {
        *("checkpoint.json", "model.safetensors", "quantize.json"),
        *("student-ptq.onnx", "student-qad.onnx"),
    }
    assert Checkpoint.load(out).scheme == "ort"
    for kind in ("ptq", "qad"):
        assert record[kind]["lint"]["ok"], record[kind]["lint"]
        assert 0 <= record[kind]["val_top1"] <= 1


def test_the_checkpoint_exports_to_the_chosen_graph(unbroken, tmp_path):
    checkpoint, out = unbroken
    stage.export_quantized(checkpoint, tmp_path / "again.onnx", 18)
    chosen = json.loads((out / "quantize.json").read_text())["chosen"]
    assert (tmp_path / "again.onnx").read_bytes() == (out / f"student-{chosen}.onnx").read_bytes()


def test_a_run_that_was_killed_ends_with_the_same_bytes(tmp_path, data, models, unbroken, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    step = training.Qad._train_step

    def stop_inside_the_second_epoch(self):
        if self.step == 7:
            raise Interrupted
        return step(self)

    monkeypatch.setattr(training.Qad, "_train_step", stop_inside_the_second_epoch)
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", data, models, config(1.5))
    assert not (tmp_path / "broken" / "checkpoint.json").exists()
    steps = []
    monkeypatch.setattr(training.Qad, "_train_step", lambda self: (steps.append(self.step), step(self))[1])
    run(tmp_path / "broken", data, models, config(1.5))
    assert steps == [7, 8]  # it went on, it did not start again
    for name in ("model.safetensors", "student-ptq.onnx", "student-qad.onnx"):
        assert (tmp_path / "broken" / name).read_bytes() == (unbroken[1] / name).read_bytes(), name


def test_qad_learns_what_it_is_asked_to(unbroken):
    record = json.loads((unbroken[1] / "quantize.json").read_text())
    assert record["qad"]["val_kl"] < record["ptq"]["val_kl"]


def test_zero_epochs_keep_ptq_and_weight_bits_follow_the_processor(tmp_path, data, models, unbroken, monkeypatch):
    opposite = not has_vnni()
    monkeypatch.setattr(ort, "has_vnni", lambda: opposite)
    checkpoint = run(tmp_path / "ptq", data, models, config(0))
    record = json.loads((tmp_path / "ptq" / "quantize.json").read_text())
    assert record["chosen"] == "ptq" and "qad" not in record
    assert not (tmp_path / "ptq" / "student-qad.onnx").exists()
    bits = {True: {"weight_bits": 8}, False: {"weight_bits": 7}}
    assert checkpoint.scheme_options == bits[opposite]
    assert unbroken[0].scheme_options == bits[not opposite]


def test_a_loss_that_is_not_finite_says_what_to_do(tmp_path, data, models, monkeypatch):
    student, teacher = build_model(SPEC), build_model(models[1])
    prepared = prepare(student, SPEC.input_shape, ort.Ort(7))
    calibrate(prepared, [torch.randn(8, 3, 8, 8)])
    normalisations = (tuple(STATISTICS.values()),) * 2
    qad = training.Qad(tmp_path, prepared, student, teacher, normalisations, None, data, QadConfig(batch_size=16), 0)
    monkeypatch.setattr(training, "kd_loss", lambda student, *_: student.sum() * float("nan"))
    with pytest.raises(RunError, match=r"Lower quantize\.qad\.lr"):
        qad.fit(NullProgress())


def test_a_step_is_relative_to_its_channels_kernel():
    """A loss of w_c / ||w_c|| alone: channels scaled by s have gradients divided by s and must move s times as far."""
    torch.manual_seed(0)
    model = build_model(SPEC)
    model.bn1.weight.data.uniform_(0.2, 3.0)
    prepared = prepare(model, SPEC.input_shape, ort.Ort(7))
    scales = {id(parameter): scale for parameter, scale in gradient_scales(prepared)}
    kernel = dict(prepared.named_parameters())["conv1.weight"]
    assert len(scales) == sum(p.ndim > 1 for p in prepared.parameters())
    directions = kernel / kernel.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    (gradient,) = torch.autograd.grad((directions * torch.randn_like(directions)).sum(), kernel)
    step = (gradient * scales[id(kernel)]).flatten(1).norm(dim=1) / kernel.flatten(1).norm(dim=1)
    assert step.max() < 3 * step.min()  # without the scale: as the squares of kernels from 0.2 to 3
    raw = gradient.flatten(1).norm(dim=1) / kernel.flatten(1).norm(dim=1)
    assert raw.max() > 10 * raw.min()


def test_training_ends_when_validation_gets_no_better(tmp_path, data, models, monkeypatch):
    kls = iter([3.0, *[1.0] * 2, 0.5, 0.7, 0.8, 0.4, 0.1])  # FP32, then PTQ's graph, then epochs
    monkeypatch.setattr(Judge, "kl", lambda *_: next(kls))
    run(tmp_path / "early", data, models, config(6, patience=2))
    record = json.loads((tmp_path / "early" / "quantize.json").read_text())["qad"]
    assert record["val_kls"] == [1.0, 0.5, 0.7, 0.8]
    assert record["steps"] == 4 * 6


def test_a_logit_method_in_place_of_the_kl(tmp_path, data, models):
    run(tmp_path / "dkd", data, models, config(0.5, method={"dkd": {"beta": 2.0}}))
    assert json.loads((tmp_path / "dkd" / "quantize.json").read_text())["qad"]["steps"] == 3


def test_a_method_on_features_is_refused(tmp_path, data, models):
    with pytest.raises(ConfigError, match=r"quantize\.qad\.method: fitnet needs features"):
        run(tmp_path / "fitnet", data, models, config(1, method="fitnet"))


def test_layers_are_kept_float_for_a_budget(tmp_path, data, models, monkeypatch):
    monkeypatch.setattr(mixed, "STEPS", 3)
    every = stage.layers
    monkeypatch.setattr(stage, "layers", lambda prepared: every(prepared)[-3:])
    wanted = QuantizeConfig(calibration=32, budget=0.0, qad=QadConfig(epochs=0))
    checkpoint = run(tmp_path / "mixed", data, models, wanted)
    record = json.loads((tmp_path / "mixed" / "quantize.json").read_text())
    found = record["mixed"]
    assert [row["layer"] for row in found["layers"]][-1] == "fc"
    assert all(row["latency_ms"] != 0 for row in found["layers"])
    assert [len(point["kept_float"]) for point in found["points"]] == [0, 1, 2, 3]
    assert checkpoint.scheme_options["kept_float"] == found["chosen"]["kept_float"] == record["kept_float"]
    assert record["ptq"]["val_top1"] == found["chosen"]["val_top1"]
    assert not (tmp_path / "mixed" / "mixed").exists()


def test_four_bits_are_marked_as_simulated(tmp_path, data, models):
    wanted = QuantizeConfig(calibration=32, weight_bits=4, qad=QadConfig(epochs=0))
    checkpoint = run(tmp_path / "four", data, models, wanted)
    record = json.loads((tmp_path / "four" / "quantize.json").read_text())
    assert "4-bit weights in INT8 storage" in record["simulated"]
    graph = onnx.load(tmp_path / "four" / "student-ptq.onnx").graph
    weights = [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.INT8 and t.dims]
    assert max(int(np.abs(w).max()) for w in weights) == 7
    assert checkpoint.scheme_options == {"weight_bits": 4}


def test_one_class_cannot_calibrate(tmp_path, data, models):
    wanted = QuantizeConfig(calibration=1, qad=QadConfig(epochs=0))
    with pytest.raises(ConfigError, match=r"quantize\.calibration: its 1 images are all of class"):
        run(tmp_path / "one", data, models, wanted)


@pytest.mark.parametrize("calibrator", ["minmax", "percentile", "entropy"])
def test_every_calibrator_gives_other_ranges(tmp_path, data, models, unbroken, calibrator):
    checkpoint = run(tmp_path / calibrator, data, models, config(0).model_copy(update={"calibrator": calibrator}))
    mse = load_file(Path(unbroken[1]) / "model.safetensors")
    found = load_file(checkpoint.weights)
    scales = [key for key in found if key.endswith("scale") and found[key].numel() == 1]
    assert scales and all(torch.isfinite(found[key]).all() and (found[key] > 0).all() for key in scales)
    assert any(not torch.equal(found[key], mse[key]) for key in scales)
