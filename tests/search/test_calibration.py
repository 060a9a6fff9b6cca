import random

import numpy as np
import pytest

from edgekd.search._statistics import kendall_tau
from edgekd.search.calibration import calibrate, choose, normal_scores, standardise
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace

SPACE = CifarResNetSpace(10, (3, 32, 32))
POINTS = [SPACE.point(SPACE.sample(random.Random(seed))) for seed in range(80)]
PRIOR = [float(np.log(point.params)) for point in POINTS]


def test_a_law_the_prior_does_not_know_is_learnt_from_twenty():
    """Accuracy by depth alone: params rank it badly, twenty labels nearly perfectly."""
    accuracy = [np.log(point.depth) + 0.05 * np.log(point.params) for point in POINTS]
    measured = choose(PRIOR, 20)
    found = calibrate(POINTS, PRIOR, measured, [accuracy[i] for i in measured])
    held_out = [i for i in range(80) if i not in measured]
    tau = lambda figures: kendall_tau([figures[i] for i in held_out], [accuracy[i] for i in held_out])  # noqa: E731
    assert found.used and found.loo_tau > found.prior_tau
    assert tau(PRIOR) < 0.5 and tau(found.figures) > 0.85


def test_labels_without_a_law_leave_the_prior():
    used = 0
    for seed in range(10):
        noise = np.random.default_rng(seed).random(80)
        accuracy = np.array(PRIOR) + 0.2 * noise
        measured = choose(PRIOR, 10)
        found = calibrate(POINTS, PRIOR, measured, list(accuracy[measured]))
        used += found.used
        if not found.used:
            assert found.figures == PRIOR
        assert kendall_tau(found.figures, list(accuracy)) > kendall_tau(PRIOR, list(accuracy)) - 0.1
    assert used <= 3


def test_one_failed_training_does_not_bend_the_fit():
    accuracy = [float(np.log(point.depth)) for point in POINTS]
    measured = choose(PRIOR, 20)
    labels = [accuracy[i] for i in measured]
    labels[7] = -1e6
    found = calibrate(POINTS, PRIOR, measured, labels)
    assert kendall_tau(found.figures, accuracy) > 0.75


def test_the_chosen_are_spread_over_the_prior():
    places = choose([5.0, 1.0, 4.0, 2.0, 3.0], 3)
    assert places == [1, 4, 0]
    assert sorted(choose([2.0, 1.0], 5)) == [0, 1]


def test_normal_scores_by_hand():
    assert normal_scores(np.array([3.0, 1.0, 2.0])) == pytest.approx([0.967422, -0.967422, 0.0], abs=1e-6)
    assert standardise(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]
