"""`edgekd select`: what it reads of checkpoints and graphs, what comes back into a training, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.cli import app
from edgekd.config import DistillConfig, load_config
from edgekd.data import Dataset, load_dataset
from edgekd.data.table import read_samples, write_samples
from edgekd.distill import distill
from edgekd.distill.methods.dho import Mixture
from edgekd.errors import DataError
from edgekd.export.metadata import describe
from edgekd.export.onnx import export_fp32
from edgekd.models import build_random, load_checkpoint
from edgekd.progress import NullProgress
from edgekd.selection import WithEmbeddings, select
from edgekd.tasks.classification import predict_torch


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def spec(data: Dataset) -> ModelSpec:
    return ModelSpec("edgekd", "resnet8", 10, data.input_shape, mean=data.mean, std=data.std)


@pytest.fixture(scope="module")
def checkpoint(spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoint")
    save_file(build_random(spec, 1).state_dict(), out / "model.safetensors")
    Checkpoint(str(out), spec).save()
    return out


def chosen(*arguments: object, out: Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["select", *map(str, arguments), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def test_entropy_of_a_checkpoint_and_of_its_graph(
    checkpoint: Path, spec: ModelSpec, data: Dataset, tmp_path: Path
) -> None:
    model = load_checkpoint(Checkpoint.load(checkpoint))
    p = torch.from_numpy(predict_torch(model, data.train.images, data.mean, data.std)).softmax(1)
    unsure = -(p * p.log()).sum(1).numpy()
    known = unsure.argsort()[-5:]  # the least sure of all are labelled
    write_samples(tmp_path / "known.txt", data.train.ids[known])
    arguments = ("--data", "digits", "--labelled", tmp_path / "known.txt", "--count", 8, "--strategy", "entropy")
    record = chosen(checkpoint, *arguments, out=tmp_path / "next.txt")
    assert record["selected"] == data.train.ids[unsure.argsort()[::-1][5:13]].tolist()
    assert (record["labelled"], record["pool"]) == (5, len(data.train) - 5)
    lines = list(map(int, (tmp_path / "next.txt").read_text().split()))
    assert lines == [*data.train.ids[known].tolist(), *record["selected"]]
    export_fp32(model, tmp_path / "s.onnx", data.input_shape, 17, metadata=describe(spec, "-"))
    assert chosen(tmp_path / "s.onnx", *arguments, out=tmp_path / "x.npz")["selected"] == record["selected"]
    assert np.array_equal(
        read_samples(tmp_path / "x.npz", data.train.ids), read_samples(tmp_path / "next.txt", data.train.ids)
    )


@pytest.mark.parametrize("strategy", ["coreset", "badge"])
def test_embeddings_of_a_checkpoint(strategy: str, checkpoint: Path, data: Dataset, tmp_path: Path) -> None:
    record = select(checkpoint, tmp_path / "a.parquet", count=6, strategy=strategy, data="digits")
    assert len(set(record["selected"])) == 6 and set(record["selected"]) <= set(data.train.ids.tolist())
    model = load_checkpoint(Checkpoint.load(checkpoint))
    images = torch.randn(3, *data.input_shape)
    both = WithEmbeddings(model, data.input_shape)(images)
    assert torch.allclose(both[:, :10], model.fc(both[:, 10:]), atol=1e-5)


def test_a_round_select_label_distill_with_the_mixture_that_ships(
    checkpoint: Path, spec: ModelSpec, data: Dataset, tmp_path: Path
) -> None:
    select(checkpoint, tmp_path / "first.txt", count=40, strategy="random", data="digits")
    small = replace(data, test=data.test[slice(50)], val=data.val[slice(30)])
    config = DistillConfig(epochs=1, batch_size=64, views=1, method="dho", labels=str(tmp_path / "first.txt"))
    out = tmp_path / "dho"
    out.mkdir()
    teacher = replace(spec, weights=str(checkpoint / "model.safetensors"))
    made = distill(out, teacher=teacher, student=spec, data=small, config=config, seed=0, progress=NullProgress())
    assert json.loads((out / "distill.json").read_text())["labelled"] == 40
    model = load_checkpoint(made)
    images = torch.randn(3, *data.input_shape)
    both = WithEmbeddings(model, data.input_shape)(images)
    assert isinstance(model.head, Mixture) and torch.allclose(model.head(both[:, 10:]), both[:, :10], atol=1e-5)
    for strategy in ("pcoreset", "badge"):
        record = select(
            out, tmp_path / "second.txt", count=10, strategy=strategy, data="digits", labelled=tmp_path / "first.txt"
        )
        first = (tmp_path / "first.txt").read_text().split()
        assert not set(record["selected"]) & set(map(int, first)) and len(record["selected"]) == 10
    assert (tmp_path / "second.txt").read_text().split()[:40] == first


def test_a_run_says_its_data_and_splits(checkpoint: Path, tmp_path: Path) -> None:
    config = load_config(None, ["data=digits", "target=x86-cpu", "seed=3", "val_fraction=0.2"])
    (tmp_path / "run.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    shutil.copytree(checkpoint, tmp_path / "distill")
    record = select(tmp_path, tmp_path / "o.txt", count=30, strategy="random")
    data = load_dataset("digits", seed=3, val_fraction=0.2)
    assert record["pool"] == len(data.train) and set(record["selected"]) <= set(data.train.ids.tolist())
    assert select(tmp_path, tmp_path / "o.txt", count=30, strategy="random", seed=4)["selected"] != record["selected"]


def test_a_list_of_labels_is_found_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("1\n2\n")
    (tmp_path / "run.yaml").write_text("data: digits\ntarget: x86-cpu\ndistill: {labels: ids.txt}\n")
    assert load_config(tmp_path / "run.yaml").distill.labels == str(tmp_path / "ids.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [("3\n4\n3\n", "has sample 3 twice"), ("99999\n", "99999 is no training image"), ("1.5\n", "invalid literal")],
)
@pytest.mark.parametrize("option", ["--labelled", "distill.labels"])
def test_lists_that_do_not_fit_are_refused(
    text: str, message: str, option: str, checkpoint: Path, data: Dataset, tmp_path: Path
) -> None:
    text = text.replace("3", str(data.train.ids[0])).replace("4", str(data.train.ids[1]))
    file, out = tmp_path / "ids.txt", tmp_path / "out.txt"
    file.write_text(text)
    if option == "--labelled":
        words = ["select", checkpoint, "--data", "digits", "--labelled", file, "--count", 1, "--out", out]
    else:
        labels = f"distill.labels={file}"
        words = ["distill", "--data", "digits", "--target", "x86-cpu", "--set", labels, "--out", out]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 2 and message.replace("3", str(data.train.ids[0])) in done.stderr
    assert str(file) in done.stderr and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", 100_000), "--count: 100000 of a pool of 1368 images"),
        (("--count", 0), "--count: 0 of a pool of"),
        (("--count", 1, "--strategy", "margin"), "--strategy: unknown name 'margin'"),
        (("--count", 1, "--labelled", "absent.txt"), "samples absent.txt do not exist"),
        (("--count", 1, "--out", "absent/o.txt"), "--out absent/o.txt: its directory does not exist"),
    ],
)
def test_bad_input(arguments: tuple[object, ...], message: str, checkpoint: Path, tmp_path: Path) -> None:
    words = ["select", checkpoint, "--data", "digits", "--out", tmp_path / "o.txt", *arguments]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 2 and message in done.stderr and not (tmp_path / "o.txt").exists(), done.stderr


def test_models_that_do_not_fit_are_refused(checkpoint: Path, spec: ModelSpec, data: Dataset, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    seven = replace(spec, num_classes=7)
    save_file(build_random(seven, 1).state_dict(), other / "model.safetensors")
    Checkpoint(str(other), seven).save()
    export_fp32(build_random(spec, 1), tmp_path / "s.onnx", data.input_shape, 17)

    def error(*words: object) -> str:
        given = ["select", *words, "--count", 1, "--out", tmp_path / "o.txt"]
        done = CliRunner().invoke(app, list(map(str, given)))
        assert done.exit_code == 2, done.output
        return str(done.stderr)

    for strategy in ("entropy", "coreset"):
        assert "has 7 classes, the data have 10" in error(other, "--data", "digits", "--strategy", strategy)
    assert "s.onnx gives logits alone" in error(tmp_path / "s.onnx", "--data", "digits", "--strategy", "badge")
    assert "--data:" in error(checkpoint)
    assert "does not exist" in error(tmp_path / "absent", "--data", "digits")


def test_samples_without_a_whole_number_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", sample=np.array([0.5]))
    with pytest.raises(DataError, match="sample is float64"):
        read_samples(tmp_path / "t.npz", np.arange(3))
