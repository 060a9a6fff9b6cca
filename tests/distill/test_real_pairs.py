"""Every method on a trained teacher and real images, with a student of its kind and one of another."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.artifacts import ModelSpec
from edgekd.catalog import METHODS
from edgekd.config import DistillConfig
from edgekd.data import Dataset, load_dataset
from edgekd.data.table import write_table
from edgekd.distill import distill
from edgekd.errors import InputError
from edgekd.models import load_checkpoint
from edgekd.progress import NullProgress
from edgekd.tasks.classification import predict_torch

SHARED = Path(__file__).parents[3] / "shared" / "data"
IMAGES, TEACHER = SHARED / "cifar100_train6bit_testexact.zip", SHARED / "teachers" / "cifar100_resnet56-f2eff4c8.pt"
SHAPE, COUNT = (3, 32, 32), 1000
NORM = {"mean": (0.5070, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2761)}
STUDENTS = {
    "resnet20": ModelSpec("edgekd", "resnet20", 100, SHAPE, {"shortcut": "B"}, **NORM),
    "mobilenet": ModelSpec("timm", "mobilenetv3_small_050", 100, SHAPE, **NORM),
}
REFUSED = {("token", "resnet20"), ("token", "mobilenet")}  # no distillation token
ADAMW = {"optimizer": "adamw", "lr": 0.0005, "weight_decay": 0.05}  # thirty steps teach depthwise layers too
OPTIONS = {
    "lelp": {"force": True, "subclasses": 2},
    "prockd": {"images": 100},
    **dict.fromkeys(("dkd", "rld", "reviewkd"), {"warmup": 0.0}),  # it would make the first loss smaller
}
# Near chance, which of the pool's images a pass counts moves the loss more than thirty steps do.
OF_PAIR = {("kd3", "mobilenet"): {"keep": 1.0}}
RISING = {
    *(("taid", pair) for pair in STUDENTS),  # its target moves away from the student
    *(("crd", pair) for pair in STUDENTS),  # until a pass has filled its memory the negatives are noise
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data() -> Dataset:
    if not (IMAGES.exists() and TEACHER.exists()):
        pytest.skip(f"{IMAGES.name} and its teacher are not in ../shared/data")
    found = load_dataset(str(IMAGES))
    return replace(found, train=found.train[slice(COUNT)], val=found.val[slice(200)], test=found.test[slice(200)])


@pytest.mark.parametrize("pair", STUDENTS)
@pytest.mark.parametrize("name", METHODS)
def test_two_epochs(name: str, pair: str, data: Dataset, tmp_path: Path) -> None:
    teacher = ModelSpec("edgekd", "resnet56", 100, SHAPE, {"shortcut": "B"}, weights=str(TEACHER), **NORM)
    needs, options = METHODS[name].needs, OPTIONS.get(name) or OF_PAIR.get((name, pair))
    choice = {name: options} if options else name
    config = DistillConfig(epochs=2, views=2, batch_size=64, **ADAMW, method=choice)
    if "unlabelled" in needs:
        config = config.model_copy(update={"labels": 0.5})
    if "pool" in needs:
        np.savez(tmp_path / "pool.npz", images=data.train.images, labels=data.train.labels)
        config = config.model_copy(update={"unlabelled": str(tmp_path / "pool.npz")})
    if "table" in needs:
        rows = np.random.default_rng(0).random((2, COUNT), np.float32)
        write_table(tmp_path / "t.npz", data.train.ids, dict(zip(("risk", "furry"), rows, strict=True)))
        config = config.model_copy(update={"table": str(tmp_path / "t.npz")})
    arguments = {"teacher": teacher, "student": STUDENTS[pair], "data": data, "config": config}
    if (name, pair) in REFUSED:
        with pytest.raises(InputError, match=name):
            distill(tmp_path, **arguments, seed=0, progress=NullProgress())
        return
    checkpoint = distill(tmp_path, **arguments, seed=0, progress=NullProgress())
    history = json.loads((tmp_path / "history.json").read_text())
    losses = [row["loss"] for row in history]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    if (name, pair) not in RISING:
        assert losses[1] < losses[0]
    logits = predict_torch(load_checkpoint(checkpoint), data.test.images, *NORM.values())
    assert logits.shape == (len(data.test), 100) and bool(np.isfinite(logits).all())
