import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgekd.artifacts import ModelSpec
from edgekd.search.scorers import Score, Scorer, ScoringTask
from edgekd.search.scorers import edgekd as module
from edgekd.search.scorers.edgekd import Edgekd, log_ranks, mean_ranks, spearman
from edgekd.search.scorers.width import Width
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace

SPACE = CifarResNetSpace(4, (1, 8, 8))
TASK = ScoringTask(ModelSpec("edgekd", "resnet8", 4, (1, 8, 8)), torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), 0, 3)
POINTS = [
    SPACE.point(Genotype(depths=(a, b, 1), widths=(8, 16, w))) for a in (1, 2) for b in (1, 3) for w in (16, 32, 48)
]


class Fake(Scorer):
    """A measure that follows the parameters up or down; keeps who was measured, with how many initialisations."""

    sign = 1.0
    asked: list = []

    def score(self, point):
        self.asked.append((point, self.task.inits))
        return Score(self.sign * point.params, 0.5)


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(module, "MEASURES", {"jacov": Fake})
    monkeypatch.setattr(Fake, "asked", [])
    return Fake


def test_log_ranks_by_hand():
    scores = [Score(0.0, 0.0, {"a": value, "b": other}) for value, other in ((3, 1), (1, 1), (2, 5))]
    found = log_ranks(scores, {"a": 1.0, "b": 0.5})
    want = [math.log(3 / 3) + 0.5 * math.log(1.5 / 3), math.log(1 / 3) + 0.5 * math.log(1.5 / 3), math.log(2 / 3)]
    assert found == pytest.approx(want)


def test_what_is_not_a_number_is_the_worst():
    scores = [Score(0.0, 0.0, {"a": value}) for value in (1.0, math.nan, -5.0)]
    assert np.argsort(log_ranks(scores, {"a": 1.0})).tolist() == [1, 2, 0]


def test_ranks_and_their_correlation():
    assert mean_ranks(np.array([5.0, 9.0, 5.0, 1.0])).tolist() == [2.5, 4.0, 2.5, 1.0]
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0])) == pytest.approx(0.5)
    assert spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0])) == 0.0


def test_the_prior_is_params_and_half_of_macs_expressivity_and_width(measured, monkeypatch):
    monkeypatch.setattr(measured, "sign", -1.0)
    scorer = Edgekd(TASK)
    scorer.settle(POINTS)
    scores = [scorer.score(point) for point in POINTS]
    assert all(set(score.terms) == {"params", "macs", "expressivity", "width"} for score in scores)
    by_hand = np.log(mean_ranks(np.array([float(p.params) for p in POINTS])) / len(POINTS))
    halves = [[p.macs for p in POINTS], [p.expressivity for p in POINTS], [p.expressivity / p.depth for p in POINTS]]
    for term in halves:
        by_hand += 0.5 * np.log(mean_ranks(np.array(term, float)) / len(POINTS))
    assert scorer.rank(scores) == pytest.approx(by_hand)


def test_a_measure_that_contradicts_the_prior_is_not_asked_again(measured, monkeypatch):
    monkeypatch.setattr(measured, "sign", -1.0)
    scorer = Edgekd(TASK)
    scorer.settle(POINTS)
    assert [inits for _, inits in measured.asked] == [1] * len(POINTS)
    scorer.score(POINTS[0])
    assert len(measured.asked) == len(POINTS)


def test_a_measure_the_founders_support_counts_with_its_spread(measured):
    scorer = Edgekd(TASK)
    scorer.settle(POINTS)
    score = scorer.score(POINTS[0])
    assert score.terms["jacov"] == POINTS[0].params and score.spread == 0.5
    assert measured.asked[-1] == (POINTS[0], 3)


def test_expressivity_is_blocks_times_log_channels():
    point = SPACE.point(Genotype(depths=(2, 1, 3), widths=(8, 16, 32)))
    assert Width(TASK).score(point).value == pytest.approx(point.expressivity / 6)
    assert point.expressivity == pytest.approx(2 * math.log(8) + math.log(16) + 3 * math.log(32))


def test_real_networks_are_measured():
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    scorer = Edgekd(replace(TASK, images=images, labels=torch.arange(4), inits=1))
    scorer.settle(POINTS[:6])
    scores = [scorer.score(point) for point in POINTS[:6]]
    assert np.isfinite(scorer.rank(scores)).all()
