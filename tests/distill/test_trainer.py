"""The loop: it learns, replay equals live, and a run stopped anywhere ends with an unbroken run's bytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.config import DistillConfig, TapsConfig, TeacherConfig, TrainConfig
from edgekd.data import Dataset, load_dataset
from edgekd.data.augment import normalise
from edgekd.distill import distill, train_teacher
from edgekd.distill.methods._base import Batch, Setup
from edgekd.distill.methods.ce import CrossEntropy
from edgekd.distill.schedule import augmentation, autocast_dtype, epoch_plan, learning_rate
from edgekd.distill.targets import Layout, LiveTargets, replay
from edgekd.distill.trainer import Trainer
from edgekd.errors import ConfigError, RunError
from edgekd.models import build_model, build_random, load_checkpoint
from edgekd.models.taps import Tapped
from edgekd.progress import NullProgress, Task
from edgekd.tasks.classification import predict_torch, top1


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def teacher(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    out = tmp_path_factory.mktemp("teacher")
    spec = ModelSpec("edgekd", "resnet8", 10, data.input_shape, mean=data.mean, std=data.std)
    config = TeacherConfig(train=TrainConfig(epochs=4, batch_size=64))
    checkpoint = train_teacher(out, spec=spec, data=data, config=config, seed=0, progress=NullProgress())
    assert checkpoint.metrics["val_top1"] > 0.9
    return replace(spec, weights=str(checkpoint.weights))


def student(data: Dataset) -> ModelSpec:
    kwargs = {"depths": (1, 1, 1), "widths": (8, 8, 16)}
    return ModelSpec("edgekd", "cifar-resnet", 10, data.input_shape, kwargs, mean=data.mean, std=data.std)


class StopAfter(NullProgress):
    """A progress that raises at the n-th advance of the task called `name`: a run killed there."""

    def __init__(self, name: str, n: int) -> None:
        self.name, self.left = name, n

    @contextmanager
    def task(self, name: str, total: float, done: float = 0) -> Iterator[Task]:
        yield self if self.name in name else NullProgress().task(name, total).__enter__()

    def advance(self, amount: float = 1) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


class Notes(NullProgress):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


CONFIG = DistillConfig(epochs=2, batch_size=64, views=2, progressive=0.5, ema=0.9, checkpoint_seconds=1e-9)


def run(out: Path, data: Dataset, teacher: ModelSpec, progress: NullProgress, **changes: object) -> Checkpoint:
    out.mkdir(exist_ok=True)
    config = CONFIG.model_copy(update=changes)
    return distill(out, teacher=teacher, student=student(data), data=data, config=config, seed=3, progress=progress)


def test_a_stopped_run_ends_with_the_same_bytes(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    unbroken = run(tmp_path / "a", data, teacher, NullProgress()).weights.read_bytes()
    spe = len(data.train) // 64
    for stop in [("targets", 3), ("distill", spe), ("distill", spe + 3)]:
        out = tmp_path / f"{stop[0]}{stop[1]}"
        with pytest.raises(KeyboardInterrupt):
            run(out, data, teacher, StopAfter(*stop))
        assert run(out, data, teacher, NullProgress()).weights.read_bytes() == unbroken, stop
        assert not (out / "state.pt").exists()


def test_the_checkpoint_scores_as_training_did(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    """Its spec's normalisation, here not the data's, is the one it was trained with."""
    odd = replace(student(data), mean=(0.9,), std=(0.05,))
    out = tmp_path / "odd"
    out.mkdir()
    config = CONFIG.model_copy(update={"ema": None, "epochs": 3})
    checkpoint = distill(out, teacher=teacher, student=odd, data=data, config=config, seed=3, progress=NullProgress())
    assert checkpoint.spec.mean == (0.9,)
    logits = predict_torch(load_checkpoint(checkpoint), data.val.images, checkpoint.spec.mean, checkpoint.spec.std)
    last = json.loads((out / "history.json").read_text())[-1]["val_top1"]
    assert top1(logits, data.val.labels) == last > 0.3
    wrong = predict_torch(load_checkpoint(checkpoint), data.val.images, data.mean, data.std)
    assert top1(wrong, data.val.labels) < last


def test_a_store_keeps_the_targets_for_the_next_student(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    store, said = str(tmp_path / "store"), Notes()
    alone = run(tmp_path / "alone", data, teacher, NullProgress(), epochs=1)
    first = run(tmp_path / "first", data, teacher, said, epochs=1, store=store)
    assert [note for note in said.said if note.startswith("teacher targets")]
    (tables,) = (path for path in (tmp_path / "store").iterdir() if path.is_dir())
    before = {file.name: file.stat().st_mtime_ns for file in tables.iterdir()}
    said = Notes()
    again = run(tmp_path / "again", data, teacher, said, epochs=1, store=store, method="dist")
    assert not [note for note in said.said if note.startswith("teacher targets")]
    assert {file.name: file.stat().st_mtime_ns for file in tables.iterdir()} == before
    assert first.weights.read_bytes() == alone.weights.read_bytes() != again.weights.read_bytes()
    with pytest.raises(ConfigError, match=r"distill.store: .*done is a file"):
        run(tmp_path / "wrong", data, teacher, NullProgress(), store=str(tables / "done"))


def test_another_seed_is_another_student(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    a = run(tmp_path / "a", data, teacher, NullProgress(), epochs=1)
    (tmp_path / "b").mkdir()
    b = distill(
        tmp_path / "b",
        teacher=teacher,
        student=student(data),
        data=data,
        config=CONFIG.model_copy(update={"epochs": 1}),
        seed=4,
        progress=NullProgress(),
    )
    assert a.weights.read_bytes() != b.weights.read_bytes()


def test_live_and_replay_train_the_same_student(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    """Epoch e sees view e in both modes, so only the fp16 rounding of the targets lies between them."""
    outs = {mode: tmp_path / mode for mode in ("live", "replay")}
    live, stored = (
        load_checkpoint(run(out, data, teacher, NullProgress(), targets=mode, lr=0.003, epochs=2, precision="fp32"))
        for mode, out in outs.items()
    )
    image = torch.randn(16, *data.input_shape)
    assert torch.allclose(live(image), stored(image), atol=0.02)
    losses = [[row["loss"] for row in json.loads((out / "history.json").read_text())] for out in outs.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0] != losses[1]


def test_replay_rows_are_the_teachers_logits(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    live = LiveTargets(Tapped(build_model(teacher), teacher.input_shape), teacher.mean, teacher.std)
    augment = augmentation(CONFIG, data, 0)
    stored = replay(tmp_path / "x", live, Layout(10), data, augment, 2, torch.device("cpu"), NullProgress())
    samples = np.array([7, 901, 3])
    pixels = augment(data.train.images[samples], samples, 1)
    batch = Batch(pixels, torch.zeros(3, dtype=torch.long), samples, 1)
    assert torch.allclose(stored(batch).logits, live(batch).logits, rtol=2e-3, atol=2e-2)


def test_features_come_from_a_live_teacher_and_resume_exactly(
    data: Dataset, teacher: ModelSpec, tmp_path: Path
) -> None:
    """Adapters, a buffer and random draws included; the run says why the teacher runs."""
    changes = {"method": "making_methods:Regress", "progressive": 0.0}
    notes = Notes()
    unbroken = run(tmp_path / "a", data, teacher, notes, **changes).weights.read_bytes()
    record = json.loads((tmp_path / "a" / "distill.json").read_text())
    assert record["targets"] == "live" and "needs features" in record["why"] and record["why"] in notes.said[0]
    assert record["student_taps"] == record["teacher_taps"] == ["layer1", "layer2", "layer3"]
    history = json.loads((tmp_path / "a" / "history.json").read_text())
    assert set(history[0]) >= {"loss_ce", "loss_maps", "loss_vectors"}
    assert history[1]["loss_vectors"] < history[0]["loss_vectors"]
    out = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt):
        run(out, data, teacher, StopAfter("distill", 5), **changes)
    assert torch.load(out / "state.pt")["method"]["methods.1.images"] == 4 * 64
    assert run(out, data, teacher, NullProgress(), **changes).weights.read_bytes() == unbroken


def test_a_transformer_with_dropout_resumes_exactly(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    size = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    vit = ModelSpec(
        "timm", "vit_tiny_patch16_224", 10, data.input_shape, {**size, "drop_rate": 0.2, "drop_path_rate": 0.2}
    )

    def fit(out: Path, progress: NullProgress, **changes: object) -> Checkpoint:
        out.mkdir(exist_ok=True)
        config = CONFIG.model_copy(update={"epochs": 1, "progressive": 0.0, **changes})
        return distill(out, teacher=teacher, student=vit, data=data, config=config, seed=3, progress=progress)

    unbroken = fit(tmp_path / "a", NullProgress()).weights.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "b", StopAfter("distill", 4))
    assert fit(tmp_path / "b", NullProgress()).weights.read_bytes() == unbroken
    with pytest.raises(ConfigError, match="distill.progressive: vit_tiny_patch16_224 takes images of one size only"):
        fit(tmp_path / "c", NullProgress(), progressive=0.5)


def test_bf16_training_gives_methods_float32(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    changes = {"method": "making_methods:Regress", "progressive": 0.0, "epochs": 1, "precision": "bf16"}
    run(tmp_path / "a", data, teacher, NullProgress(), **changes)
    (row,) = json.loads((tmp_path / "a" / "history.json").read_text())
    assert np.isfinite([row["loss_maps"], row["loss_vectors"]]).all()


def test_named_taps(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    taps = TapsConfig(student=("layer2", "layer3.0.conv1"), teacher=("layer3",))
    run(
        tmp_path / "a",
        data,
        teacher,
        NullProgress(),
        method="making_methods:Regress",
        progressive=0,
        taps=taps,
        epochs=1,
    )
    record = json.loads((tmp_path / "a" / "distill.json").read_text())
    assert record["student_taps"] == ["layer2", "layer3.0.conv1"] and record["teacher_taps"] == ["layer3"]


def test_embeddings_are_stored_and_train_as_live_ones(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    losses = []
    for mode in ("live", "replay"):
        out = tmp_path / mode
        run(out, data, teacher, NullProgress(), method="making_methods:Embedded", targets=mode, lr=0.003)
        losses.append([row["loss"] for row in json.loads((out / "history.json").read_text())])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0] != losses[1]
    record = json.loads((tmp_path / "replay" / "distill.json").read_text())
    assert record["target_bytes"] == 2 * len(data.train) * (10 + 64) * 2 and record["targets"] == "replay"
    assert not (tmp_path / "replay" / "replay").exists()


def test_what_ships_around_the_student_is_built_again(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    changes = {"method": "making_methods:Shipping", "epochs": 2, "lr": 0.01, "ema": None}
    checkpoint = run(tmp_path / "a", data, teacher, NullProgress(), **changes)
    again = load_checkpoint(Checkpoint.load(tmp_path / "a"))
    assert checkpoint.spec.around == {"class": "making_methods:Shifted", "kwargs": {"label": 0}}
    image = torch.randn(2, *data.input_shape)
    assert torch.equal(again(image), again.student(image) + again.shift)  # type: ignore[operator]
    logits = predict_torch(again, data.val.images, data.mean, data.std)
    assert checkpoint.metrics["val_top1"] == top1(logits, data.val.labels)
    plain = predict_torch(again.student, data.val.images, data.mean, data.std)  # type: ignore[arg-type]
    assert checkpoint.metrics["val_top1"] < top1(plain, data.val.labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "making_methods:Picky"}, "Picky needs 11 classes, the data have 10"),
        (
            {"method": "making_methods:Regress", "progressive": 0.5},
            "distill.progressive: Regress compares feature maps",
        ),
        ({"method": "making_methods:Everything", "top_k": 3}, "needs the logits of all 10 classes, and .* store 3"),
        ({"method": {"topkld": {"k": 4}}, "top_k": 3}, "topkld reads the 4 largest logits, and replay would store 3"),
        ({"method": [{"taid": {"method": {"pld": {"top": 4}}}}, "rkd"], "top_k": 3}, "reads the 4 largest logits"),
        ({"method": "making_methods:Shipping"}, "distill.ema: Shipping ships more than the student"),
        ({"method": "mixkd", "mixup": 0.2}, "distill.mixup: mixkd mixes the images itself"),
        ({"batch_size": 64, "accumulate": 3}, "batch_size 64 cannot be split into 3 parts"),
        ({"batch_size": 64, "crops": 3}, "batch_size 64 is not a multiple of crops 3"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, object], message: str, data: Dataset, teacher: ModelSpec, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "a", data, teacher, NullProgress(), **changes)


def test_a_batch_in_parts_is_the_same_step(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    """Up to BatchNorm, which is at rest here."""

    def losses(name: str, **changes: object) -> list[float]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn.BatchNorm2d, "train", lambda self, mode=True: nn.Module.train(self, False))
            run(tmp_path / name, data, teacher, NullProgress(), lr=0.01, epochs=1, **changes)
        return [row["loss"] for row in json.loads((tmp_path / name / "history.json").read_text())]

    assert losses("whole") == pytest.approx(losses("parts", accumulate=4), rel=1e-4)


def test_mixup_mixes_images_and_losses(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    """Both networks see the mixed image, the label term is mixed likewise, and the run resumes exactly."""
    changes = {"mixup": 1.0, "epochs": 1}
    notes = Notes()
    first = run(tmp_path / "a", data, teacher, notes, **changes).weights.read_bytes()
    assert "mixed anew" in notes.said[0]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", data, teacher, StopAfter("distill", 7), **changes)
    assert run(tmp_path / "b", data, teacher, NullProgress(), **changes).weights.read_bytes() == first
    assert run(tmp_path / "c", data, teacher, NullProgress(), epochs=1).weights.read_bytes() != first


@pytest.mark.parametrize(
    ("method", "targets"),
    [
        ({"mixkd": {"mixed": 0.5}}, "live"),
        ([{"taid": {"alpha": 0.05}}, {"dhkd": {"align": True, "hidden": 8}}], "replay"),
    ],
)
def test_methods_that_mix_and_those_with_moving_targets_resume_exactly(
    method: object, targets: str, data: Dataset, teacher: ModelSpec, tmp_path: Path
) -> None:
    notes = Notes()
    changes = {"method": method, "epochs": 1, "progressive": 0.0}
    first = run(tmp_path / "a", data, teacher, notes, **changes).weights.read_bytes()
    record = json.loads((tmp_path / "a" / "distill.json").read_text())
    assert record["targets"] == targets
    if targets == "live":
        assert "mixkd makes new images at every step" in record["why"] and record["why"] in notes.said[0]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", data, teacher, StopAfter("distill", 7), **changes)
    assert run(tmp_path / "b", data, teacher, NullProgress(), **changes).weights.read_bytes() == first


@pytest.mark.parametrize(
    "changes",
    [
        {"method": {"tgeo": {"every": 2}}},
        {"method": {"hard": {"every": 2}}},
        {"method": ["kd", "talking", {"prockd": {"count": 8}}]},
        {"method": {"lelp": {"subclasses": 2}}, "ema": None},
        {"method": "dho", "labels": 0.2, "ema": None},
        {"method": {"swing": {"risk": 0.5}}},
        {"method": {"kd3": {"warm": 0.0}}, "unlabelled": "digits"},
    ],
    ids=lambda changes: str(changes["method"])[:9],
)
def test_methods_with_networks_and_streams_of_their_own_resume_exactly(
    changes: dict[str, Any], data: Dataset, teacher: ModelSpec, tmp_path: Path
) -> None:
    changes = {**changes, "epochs": 1, "progressive": 0.0}
    first = run(tmp_path / "a", data, teacher, NullProgress(), **changes).weights.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", data, teacher, StopAfter("distill", 7), **changes)
    assert run(tmp_path / "b", data, teacher, NullProgress(), **changes).weights.read_bytes() == first


def test_a_teacher_without_embeddings_serves_a_second_head(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    """Its row asks for the student's alone, so nothing else of the teacher is stored."""
    run(tmp_path / "a", data, teacher, NullProgress(), method="dhkd", epochs=1)
    record = json.loads((tmp_path / "a" / "distill.json").read_text())
    assert record["target_bytes"] == 2 * len(data.train) * 10 * 2


def test_the_loss_of_a_mixed_batch(data: Dataset, tmp_path: Path) -> None:
    spec = student(data)
    config = TrainConfig(batch_size=8, mixup=0.5, precision="fp32")
    net = Tapped(build_random(spec, 0), spec.input_shape)
    trainer = Trainer(tmp_path, net, spec, CrossEntropy(), None, data, augmentation(config, data, 0), config, 0)
    samples = np.arange(8)
    labels = torch.from_numpy(data.train.labels[:8])
    batch = trainer._mixed(Batch(data.train.images[:8], labels, samples, 0))
    assert batch.partners is not None and torch.equal(batch.partners, labels.flip(0)) and 0 < batch.mix < 1
    images = data.train.images[:8].astype(float)
    assert np.abs(batch.pixels - (batch.mix * images + (1 - batch.mix) * images[::-1])).max() <= 0.5 + 1e-4
    logits = net.model.train()(normalise(batch.pixels, spec.mean, spec.std))
    log_p = logits.log_softmax(1)
    expected = -(batch.mix * log_p[range(8), labels] + (1 - batch.mix) * log_p[range(8), labels.flip(0)]).mean()
    assert trainer._terms(batch, 0)["ce"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_crops_bring_several_views_of_an_image(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    config = TrainConfig(batch_size=6, crops=3)
    plans = [epoch_plan(config, 20, 0, epoch, None) for epoch in range(6)]
    assert [len(plan) for plan in plans] == [3] * 6
    rows = [np.stack([samples, np.broadcast_to(views, 6)], 1) for plan in plans for samples, views in plan]
    seen = Counter(map(tuple, np.concatenate(rows).tolist()))
    assert set(seen.values()) == {1} and len(seen) == 18 * 6 and {v for _, v in seen} == set(range(6))
    samples, views = plans[0][0]
    assert samples.tolist() == sorted(samples.tolist(), key=samples.tolist().index) and len(set(samples.tolist())) == 2
    assert views.tolist() == [0, 1, 2, 0, 1, 2]
    assert set(epoch_plan(config, 20, 0, 5, views=2)[0][1].tolist()) == {0, 1}
    run(tmp_path / "a", data, teacher, NullProgress(), crops=2, epochs=2)
    assert len(json.loads((tmp_path / "a" / "history.json").read_text())) == 2


def test_a_method_is_told_the_steps_of_the_whole_run(data: Dataset, tmp_path: Path) -> None:
    """Steps of the optimizer: neither the parts of a batch nor the crops of an image count."""
    seen: list[int] = []

    class Counting(CrossEntropy):
        def prepare(self, setup: Setup) -> None:
            seen.append(setup.steps)

        def after_step(self, step: int) -> None:
            seen.append(step)

    spec = student(data)
    config = TrainConfig(batch_size=64, epochs=2, accumulate=2, crops=2)
    net = Tapped(build_random(spec, 0), spec.input_shape)
    Trainer(tmp_path, net, spec, Counting(), None, data, augmentation(config, data, 0), config, 0).fit(
        NullProgress(), "train"
    )
    total = 2 * (len(data.train) // 64)
    assert seen == [total, *range(total)]


def test_progressive_resizing_starts_small_and_ends_at_full_size(
    data: Dataset, teacher: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watched(spec: ModelSpec, seed: int) -> nn.Module:
        net = build_random(spec, seed)
        net.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[-1]) if module.training else None)
        return net

    sizes: list[int] = []
    monkeypatch.setattr("edgekd.distill.build_random", watched)
    run(tmp_path / "p", data, teacher, NullProgress(), progressive=0.5)
    half = len(data.train) // 64
    assert sizes == [data.input_shape[1] * 3 // 4] * half + [data.input_shape[1]] * half


def test_schedule() -> None:
    config = TrainConfig(epochs=10, lr=0.2, warmup_epochs=2)
    rates = [learning_rate(config, step, 5) for step in range(50)]
    assert rates[0] == pytest.approx(0.02) and max(rates) == rates[9] == rates[10] == pytest.approx(0.2)
    assert rates[30] == pytest.approx(0.1) and 0 < rates[49] < 1e-3


def test_divergence_is_an_error(data: Dataset, teacher: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="loss is .*\n.*lr"):
        run(tmp_path / "d", data, teacher, NullProgress(), lr=1e20, warmup_epochs=0, ema=None)


def test_bf16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, dtype in [({"avx2"}, None), ({"amx_bf16"}, torch.bfloat16)]:
        monkeypatch.setattr("edgekd.profile.machine.isa_features", lambda f=features: frozenset(f))
        assert autocast_dtype(TrainConfig(), torch.device("cpu")) is dtype
    assert autocast_dtype(TrainConfig(precision="fp32"), torch.device("cpu")) is None
