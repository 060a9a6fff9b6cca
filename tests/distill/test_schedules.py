"""Schedules by hand, and what they need: the steps of the run, from which alone they go."""

from __future__ import annotations

import pytest
import torch
from logit_rows import STUDENT, TEACHER, prepared, run
from making_features import SLIM_CNN, WIDE_CNN, setup, side

from edgekd.distill.methods._base import Method
from edgekd.distill.methods._schedules import cosine, progress, warmup
from edgekd.distill.methods.dhkd import DHKD
from edgekd.distill.methods.dkd import DKD
from edgekd.distill.methods.kd import KD
from edgekd.distill.methods.reviewkd import ReviewKD
from edgekd.distill.methods.rld import RLD
from edgekd.distill.methods.taid import TAID
from edgekd.distill.methods.trg import TRG
from edgekd.distill.methods.wkd import WKD
from edgekd.errors import ConfigError


def test_warm_up_by_hand() -> None:
    assert [warmup(step, 40, 0.1) for step in (0, 1, 2, 3, 4, 39)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert warmup(0, 10, 0) == 1  # none
    assert warmup(0, 10, 1 / 12) == 1  # shorter than a step
    assert [warmup(step, 4, 1) for step in range(4)] == [0.25, 0.5, 0.75, 1]


def test_progress_and_cosine_by_hand() -> None:
    assert [progress(x, 0.25, 0.75) for x in (0, 0.25, 0.375, 0.5, 0.75, 1)] == [0, 0, 0.25, 0.5, 1, 1]
    assert [progress(x, 0.5, 0.5) for x in (0.49, 0.5)] == [0, 1]
    assert progress(0, 0, 0) == 1
    assert [cosine(x) for x in (0, 1 / 3, 0.5, 1)] == pytest.approx([0, 0.25, 0.5, 1])


@pytest.mark.parametrize(
    ("method", "option"),
    [
        (DKD(), "warmup"),
        (RLD(), "warmup"),
        (WKD(), "decay_start"),
        (KD(temperature_end=1.0), "anneal_share"),
        (ReviewKD(), "warmup"),
        (TAID(), "t"),
        (TRG(), "temperature"),
        (DHKD(stop=0.5), "stop"),
    ],
)
def test_a_run_of_unknown_length_is_refused(method: Method, option: str) -> None:
    name = type(method).__name__.lower()
    with pytest.raises(ConfigError, match=rf"distill.method {name}: {option} follows the run.*\nGive Setup"):
        method.prepare(setup(side(SLIM_CNN), side(WIDE_CNN), steps=0))


@pytest.mark.parametrize("method", [DKD(warmup=0), RLD(warmup=0), KD(), ReviewKD(warmup=0), DHKD()])
def test_without_a_schedule_the_length_does_not_matter(method: Method) -> None:
    method.prepare(setup(side(SLIM_CNN), side(WIDE_CNN), steps=0))


@pytest.mark.parametrize("rows", [1, 3])
def test_neither_the_batch_nor_the_data_set_the_pace(rows: int) -> None:
    student, teacher, labels = STUDENT.expand(rows, 4), TEACHER.expand(rows, 4), torch.zeros(rows, dtype=torch.long)
    method = prepared(DKD(warmup=0.5), samples=10 * rows, steps=20)
    first, half = (run(method, student, teacher, labels, step)["nckd"].item() for step in (0, 9))
    assert first / half == pytest.approx(1 / 10)
