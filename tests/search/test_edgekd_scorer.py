import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgekd.artifacts import ModelSpec
from edgekd.search._statistics import mean_ranks, spearman
from edgekd.search.scorers import Score, Scorer, ScoringTask
from edgekd.search.scorers import edgekd as module
from edgekd.search.scorers.edgekd import Edgekd, in_order, places
from edgekd.search.scorers.width import Width
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace

SPACE = CifarResNetSpace(4, (1, 8, 8))
TASK = ScoringTask(ModelSpec("edgekd", "resnet8", 4, (1, 8, 8)), torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), 0, 3)
SHAPES = [((a, b, 1), (8, 16, w)) for a in (1, 2) for b in (1, 3) for w in (16, 32, 48)]
POINTS = [SPACE.point(Genotype(depths=depths, widths=widths)) for depths, widths in SHAPES]


class Fake(Scorer):
    """A measure that follows the parameters up or down; keeps who was measured, with how many initialisations."""

    sign = 1.0
    repeats = True
    asked: list = []

    def score(self, point):
        self.asked.append((point, self.task.inits))
        turn = 1 if self.repeats or self.task.seed % 2 else -1
        return Score(turn * self.sign * point.params, 0.5)


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(module, "MEASURES", {"jacov": Fake})
    monkeypatch.setattr(Fake, "asked", [])
    return Fake


def settled(points=POINTS, task=TASK):
    scorer = Edgekd(task)
    scorer.settle(points)
    return scorer


def test_places_by_hand():
    reference = in_order([5.0, 2.0, 1.0, 2.0])
    found = places(reference, np.array([0.0, 1.0, 2.0, 3.0, 9.0, math.nan]))
    assert found == pytest.approx([0.5 / 5, 1 / 5, 2.5 / 5, 3.5 / 5, 4.5 / 5, 0.5 / 5])
    assert places(in_order([1.0, math.nan]), [1.0]) == pytest.approx([2 / 3])


def test_ranks_and_their_correlation():
    assert mean_ranks(np.array([5.0, 9.0, 5.0, 1.0])).tolist() == [2.5, 4.0, 2.5, 1.0]
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0])) == pytest.approx(0.5)
    assert spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0])) == 0.0


def test_the_prior_is_params_half_of_expressivity_and_quarters_of_macs_and_width(measured, monkeypatch):
    monkeypatch.setattr(measured, "sign", -1.0)
    scorer = settled()
    scores = [scorer.score(point) for point in POINTS]
    assert all(set(score.terms) == {"params", "macs", "expressivity", "width"} for score in scores)
    columns = [[getattr(p, name) for p in POINTS] for name in ("params", "macs", "expressivity")]
    columns.append([p.expressivity / p.depth for p in POINTS])
    by_hand = sum(
        weight * np.log(mean_ranks(np.array(column, float)) / (len(POINTS) + 1))
        for weight, column in zip((1, 0.25, 0.5, 0.25), columns, strict=True)
    )
    assert [score.value for score in scores] == pytest.approx(by_hand)


def test_a_point_beyond_the_reference_gains_no_more(measured):
    scorer = settled(POINTS[:4])
    one, other = (SPACE.point(Genotype(depths=(9, 9, n), widths=(64, 128, 160))) for n in (8, 9))
    assert one.params < other.params and scorer.score(one).value == pytest.approx(scorer.score(other).value, abs=1e-9)


def test_a_measure_that_contradicts_the_prior_is_not_asked_again(measured, monkeypatch):
    monkeypatch.setattr(measured, "sign", -1.0)
    scorer = settled()
    assert [inits for _, inits in measured.asked] == [1] * 2 * len(POINTS)
    scorer.score(SPACE.point(SPACE.smallest()))
    assert len(measured.asked) == 2 * len(POINTS)


def test_a_measure_that_does_not_repeat_itself_is_left_out(measured, monkeypatch):
    monkeypatch.setattr(measured, "repeats", False)
    assert "jacov" not in settled().score(POINTS[0]).terms
    monkeypatch.setattr(measured, "repeats", True)
    assert "jacov" in settled().score(POINTS[0]).terms


def test_a_measure_the_founders_support_counts_with_its_spread(measured):
    scorer = settled()
    asked = len(measured.asked)
    score = scorer.score(POINTS[0])
    assert score.terms["jacov"] == POINTS[0].params and score.spread == 0.5
    assert len(measured.asked) == asked, "the founders are measured once"
    assert measured.asked[-1] == (POINTS[-1], 3)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_a_search_settled_is_restored_from_its_first_scores(measured, monkeypatch, sign):
    monkeypatch.setattr(measured, "sign", sign)
    scorer = settled()
    founders = [scorer.score(point) for point in POINTS]
    again, point = Edgekd(TASK), SPACE.point(SPACE.named["resnet20"])
    again.restore(founders)
    assert again.score(point) == scorer.score(point)


def test_expressivity_is_blocks_times_log_channels():
    point = SPACE.point(Genotype(depths=(2, 1, 3), widths=(8, 16, 32)))
    assert Width(TASK).score(point).value == pytest.approx(point.expressivity / 6)
    assert point.expressivity == pytest.approx(2 * math.log(8) + math.log(16) + 3 * math.log(32))


def test_real_networks_are_measured():
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    scorer = settled(POINTS[:6], replace(TASK, images=images, labels=torch.arange(4), inits=1))
    assert all(math.isfinite(scorer.score(point).value) for point in POINTS[:6])
