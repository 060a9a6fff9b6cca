"""Streams: batches of labelled and unlabelled images, what is held out, and streams that are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.catalog import METHODS
from edgekd.config import DistillConfig
from edgekd.data import Dataset, load_dataset
from edgekd.distill.schedule import epoch_plan
from edgekd.distill.streams import Streams, with_streams
from edgekd.errors import ConfigError

KD = METHODS["kd"]
SEMI = replace(KD, name="semi", needs=("labels", "unlabelled"))
LABELS = np.where(np.arange(100) % 10, -1, np.arange(100) // 10 % 5)  # ten with a label


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits")


def test_half_of_every_batch_has_labels_and_every_image_its_turn() -> None:
    streams, config = Streams.of(LABELS, 0.0, 0), DistillConfig(batch_size=20)
    assert len(streams) == 100 and streams.steps(config) == 5
    plans = [streams.plan(config, 0, epoch, None) for epoch in range(9)]
    for samples, _ in plans[0]:
        assert (LABELS[samples] >= 0).tolist() == [True, False] * 10
    rows = np.concatenate([samples[1::2] for plan in plans for samples, _ in plan])
    views = np.concatenate([views[1::2] for plan in plans for _, views in plan])
    assert (np.bincount(rows)[LABELS < 0] == 5).all()  # 450 places for 90 images, though an epoch has but 50
    assert all(len(set(views[rows == i].tolist())) == 5 for i in np.unique(rows))
    labelled = [
        (i, v) for plan in plans for samples, views in plan for i, v in zip(samples[::2], views[::2], strict=True)
    ]
    assert len(set(labelled)) == len(labelled) == 450
    stored = streams.plan(config, 0, 8, 3)
    assert {view for _, views in stored for view in views.tolist()} <= {0, 1, 2}


def test_a_plan_is_a_function_of_seed_and_epoch() -> None:
    streams, config = Streams.of(LABELS, 0.0, 0), DistillConfig(batch_size=20)
    one, same, other = (streams.plan(config, seed, 3, None) for seed in (0, 0, 1))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0][0], other[0][0])


def test_without_streams_nothing_changes() -> None:
    config = DistillConfig(batch_size=16)
    ours = Streams.of(np.arange(50) % 5, 0.0, 0).plan(config, 3, 2, 4)
    for (samples, view), (expected, known) in zip(ours, epoch_plan(config, 50, 3, 2, 4), strict=True):
        assert np.array_equal(samples, expected) and view == known


def test_what_is_held_out_is_not_trained_on() -> None:
    labels = np.arange(100) % 5
    streams = Streams.of(labels, 0.1, 0)
    assert np.bincount(labels[streams.held]).tolist() == [2] * 5 and len(streams) == 90
    seen = {i for samples, _ in streams.plan(DistillConfig(batch_size=10), 0, 0, None) for i in samples.tolist()}
    assert seen == set(range(100)) - set(streams.held.tolist())
    few = Streams.of(LABELS, 0.01, 0)
    assert len(few.held) == 5 and (LABELS[few.held] >= 0).all() and len(few.unlabelled) == 90


@pytest.mark.parametrize(("labels", "each"), [(0.1, None), (7, 7)])
def test_some_labels_are_kept(labels: float, each: int | None, data: Dataset) -> None:
    config = DistillConfig(labels=labels)
    semi = with_streams(data, SEMI, config, 0).train
    known = semi.labels >= 0
    assert np.array_equal(semi.labels[known], data.train.labels[known]) and len(semi) == len(data.train)
    counts, whole = np.bincount(semi.labels[known]), np.bincount(data.train.labels)
    assert counts.tolist() == ([each] * 10 if each else [round(0.1 * n) for n in whole])
    supervised = with_streams(data, KD, config, 0).train
    assert np.array_equal(supervised.ids, data.train.ids[known]) and np.array_equal(
        supervised.images, semi.images[known]
    )
    assert not np.array_equal(with_streams(data, SEMI, config, 1).train.labels, semi.labels)


def test_more_images_come_from_elsewhere(data: Dataset, tmp_path: Path) -> None:
    more = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
    np.savez(tmp_path / "more.npz", images=more, labels=np.arange(30) % 2)
    train = with_streams(data, SEMI, DistillConfig(unlabelled=str(tmp_path / "more.npz")), 0).train
    assert len(train) == len(data.train) + 30 and (train.labels[-30:] == -1).all() and (train.ids[-30:] == -1).all()
    assert np.array_equal(train.images[-30:, :, :, 0], more) and (train.labels[:-30] >= 0).all()
    np.savez(tmp_path / "large.npz", images=np.zeros((30, 9, 9), np.uint8), labels=np.arange(30) % 2)
    with pytest.raises(ConfigError, match=r"distill.unlabelled: its images are \(9, 9, 1\)"):
        with_streams(data, SEMI, DistillConfig(unlabelled=str(tmp_path / "large.npz")), 0)


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (SEMI, {}, "distill.unlabelled: semi needs a stream of unlabelled images, and there is none"),
        (KD, {"unlabelled": "digits"}, "distill.unlabelled: kd makes no use of unlabelled images"),
        (SEMI, {"labels": 10_000}, "distill.labels: 10000 labels of every class, and '.' has"),
        (SEMI, {"labels": 2.5}, "distill.labels: 2.5 labels of every class"),
        (SEMI, {"labels": 0.9999}, "distill.labels: all images have their labels"),
    ],
)
def test_missing_streams_are_refused(row: Any, changes: dict[str, Any], message: str, data: Dataset) -> None:
    with pytest.raises(ConfigError, match=message):
        with_streams(data, row, DistillConfig(**changes), 0)
