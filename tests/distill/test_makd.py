"""MaKD: the loss by hand, tables that do not serve, runs with a table, and how `edgekd aspects` makes one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making_features import batch, setup
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from edgekd.artifacts import ModelSpec
from edgekd.cli import app
from edgekd.config import DistillConfig, method_choices
from edgekd.data import load_dataset
from edgekd.data.aspects import make_aspects
from edgekd.data.table import read_table, write_table
from edgekd.distill import distill
from edgekd.distill.methods._base import Outputs, Side
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.makd import MaKD
from edgekd.errors import ConfigError, DataError, ModelError
from edgekd.export.onnx import export_fp32
from edgekd.models import build_random, load_checkpoint
from edgekd.progress import NullProgress

STUDENT = Side({}, 6, nn.Linear(6, 5))
TABLE = {
    name: np.random.default_rng(i).random(40).astype(np.float32) for i, name in enumerate(("furry", "red", "risk"))
}


def prepared(table=TABLE, **options: object) -> MaKD:
    method = MaKD(**options)
    method.prepare(replace(setup(STUDENT, None), table=table))
    return method


@pytest.mark.parametrize(("columns", "names"), [(None, ["furry", "red"]), (("red",), ["red"])])
def test_the_loss_by_hand(columns, names) -> None:
    method, z = prepared(alpha=3.0, columns=columns), torch.randn(8, 6)
    samples = [7, 39, 0, 1, 2, 3, 30, 12]
    terms = method.loss(Outputs(STUDENT.classifier(z), None, z), None, batch(8, samples), 0)
    answers = torch.tensor(np.stack([TABLE[name][samples] for name in names], 1))
    r = method.head(z)
    bce = -(answers * F.logsigmoid(r) + (1 - answers) * F.logsigmoid(-r))
    assert list(terms) == ["makd"] and terms["makd"].item() == pytest.approx(3 * bce.mean().item(), rel=1e-5)


def test_tables_that_do_not_serve_are_refused() -> None:
    for table, options, message in (
        (TABLE, {"columns": ("blue",)}, "distill.table has no column blue, only furry, red, risk"),
        ({"risk": TABLE["risk"]}, {}, "has no column of an aspect"),
        ({"furry": 2 * TABLE["furry"]}, {}, "column furry of distill.table goes from .* to 1.*\nStore probabilities"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepared(table, **options)
    with pytest.raises(ConfigError, match="distill.mixup: makd has the answers of whole images"):
        prepared().transform_batch(replace(batch(), partners=torch.zeros(8, dtype=torch.long), mix=0.3), 0)
    with pytest.raises(ConfigError, match="makd cannot be listed with mixkd"):
        make_method(method_choices(["mixkd", "makd"]), 0.0, 0)


def test_it_stands_beside_a_loss_of_logits_and_runs_no_teacher_alone() -> None:
    rows = [make_method(method_choices(value), 0.0, 0)[1] for value in ("makd", ["kd", "makd"])]
    assert [row.teacher for row in rows] == [False, True] and rows[1].replayable
    assert prepared().state_dict().keys() == {"head.weight", "head.bias"}


def test_a_run_needs_its_table_and_ships_the_student(tmp_path: Path) -> None:
    data = load_dataset("digits")
    data = replace(data, train=data.train[slice(128)], val=data.val[slice(20)])
    spec = ModelSpec("edgekd", "resnet8", 10, data.input_shape, mean=data.mean, std=data.std)
    given = {"teacher": spec, "student": spec, "data": data, "seed": 0, "progress": NullProgress()}
    config = DistillConfig(epochs=1, batch_size=32, method="makd")
    with pytest.raises(ConfigError, match="distill.table: makd needs a table"):
        distill(tmp_path, config=config, **given)
    with pytest.raises(ConfigError, match="distill.table: kd reads no table"):
        distill(tmp_path, config=DistillConfig(table="x.npz"), **given)
    table = tmp_path / "t.parquet"
    write_table(table, data.train.ids[:-3], {"dark": np.zeros(125, np.float32)})
    config = config.model_copy(update={"table": str(table)})
    with pytest.raises(DataError, match="misses 3 of 128 samples, first "):
        distill(tmp_path, config=config, **given)
    write_table(table, data.train.ids, {"dark": np.linspace(0, 1, 128, dtype=np.float32)})
    (tmp_path / "out").mkdir()
    model = load_checkpoint(distill(tmp_path / "out", config=config, **given))
    assert model.state_dict().keys() == build_random(spec, 0).state_dict().keys()


class Encoder(nn.Module):
    """Embeddings of four values: of the image's quarters."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(images, 2).flatten(1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "encoder.onnx"
    export_fp32(Encoder(), file, (1, 8, 8), 17)
    return file


def test_aspects_of_a_zero_shot_model(encoder: Path, tmp_path: Path) -> None:
    yes, no = np.eye(4)[:2], np.eye(4)[2:]
    np.savez(tmp_path / "texts.npz", yes=3 * yes, no=no, names=np.array(["top left", "top right"]))
    assert (
        make_aspects("digits", encoder, tmp_path / "t.npz", NullProgress(), texts=tmp_path / "texts.npz", scale=10)[1]
        == 2
    )
    data = load_dataset("digits")
    columns = read_table(tmp_path / "t.npz", data.train.ids)
    image = data.train.images[5, :, :, 0] / 255
    v = np.array([image[:4, :4].mean(), image[:4, 4:].mean(), image[4:, :4].mean(), image[4:, 4:].mean()])
    v /= np.linalg.norm(v)
    odds = np.exp(10 * v)
    assert columns["top left"][5] == pytest.approx(odds[0] / (odds[0] + odds[2]), abs=1e-4)
    assert columns["top right"][5] == pytest.approx(odds[1] / (odds[1] + odds[3]), abs=1e-4)


def test_aspects_of_a_model_of_labels_by_command(encoder: Path, tmp_path: Path) -> None:
    runner, out = CliRunner(), tmp_path / "t.parquet"
    result = runner.invoke(
        app, ["aspects", "digits", str(encoder), str(out), "--softmax", "--mean", "0.5", "--std", "0.25"]
    )
    assert result.exit_code == 0, result.output
    assert f"4 aspects of 1,797 images; use it with --set distill.table={out}" in result.output.replace("\n", "")
    columns = read_table(out, np.arange(1797))
    assert sum(columns.values()) == pytest.approx(np.ones(1797), abs=1e-5)
    bad = runner.invoke(app, ["aspects", "digits", str(encoder), str(out), "--mean", "a,b"])
    assert bad.exit_code == 2 and "--mean: 'a,b' are no numbers" in bad.output


def test_bad_texts_are_refused(encoder: Path, tmp_path: Path) -> None:
    def make(**arrays: np.ndarray) -> None:
        np.savez(tmp_path / "texts.npz", **arrays)
        make_aspects("digits", encoder, tmp_path / "t.npz", NullProgress(), texts=tmp_path / "texts.npz")

    eye = np.eye(4)
    with pytest.raises(DataError, match="holds no two arrays yes and no"):
        make(yes=eye)
    with pytest.raises(DataError, match="3 names for 4 questions"):
        make(yes=eye, no=eye, names=np.array(["a", "b", "c"]))
    with pytest.raises(DataError, match="embeddings of 3 values, and the images' have 4"):
        make(yes=np.eye(3), no=np.eye(3))
    with pytest.raises(ModelError, match="takes images"):
        make_aspects("digits", encoder, tmp_path / "t.npz", NullProgress(), image_size=16)
