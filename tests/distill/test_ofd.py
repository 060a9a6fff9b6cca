"""OFD: the partial distance and the margins by hand."""

from __future__ import annotations

import pytest
import torch
from making_features import SLIM_CNN, WIDE_CNN, batch, outputs, setup, side
from torch import nn

from edgekd.distill.methods.ofd import Negatives, OverhaulKD, partial_distance


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (-1.0, 2.0, 9.0),  # a positive target counts in full
        (1.0, -0.5, 2.25),  # above a target between margin and 0
        (-0.8, -0.5, 0.0),  # below it: the ReLU hides both
        (0.0, -3.0, 1.0),  # a target below the margin becomes the margin, -1
        (-2.0, -3.0, 0.0),  # above the teacher's value, below the margin
    ],
)
def test_partial_distance_by_hand(ours: float, theirs: float, expected: float) -> None:
    distance = partial_distance(*(torch.full((1, 1, 1, 1), x) for x in (ours, theirs)), torch.tensor([-1.0]))
    assert distance.item() == pytest.approx(expected)


def test_margins_are_the_mean_of_all_negative_values_by_hand() -> None:
    negatives = Negatives(2)
    first = torch.tensor([[[[-1.0, 5.0]], [[2.0, 2.0]]]])
    assert negatives(first).tolist() == [-1, 0]
    assert negatives(first).tolist() == [-1, 0] and negatives.number.tolist() == [0, 0]  # not kept yet
    negatives.keep()  # both
    assert negatives(torch.tensor([[[[-4.0, -2.0]], [[-3.0, 0.0]]]])).tolist() == [-2, -3]  # (-1 -1 -4 -2) / 4


def test_earlier_layers_count_half() -> None:
    network = side({"a": (2, 2, 2), "b": (2, 2, 2)})
    method = OverhaulKD(weight=1.0)
    method.prepare(setup(network, network))
    method.connectors = nn.ModuleList([nn.Identity(), nn.Identity()])
    ours, theirs = outputs(network, 0), outputs(network, 1)
    each = [partial_distance(ours.features[tap], theirs.features[tap], torch.zeros(2)).item() for tap in ("a", "b")]
    assert method.loss(ours, theirs, batch(), 0)["ofd"].item() == pytest.approx(each[0] / 2 + each[1], rel=1e-5)
    assert method.loss(ours, ours, batch(), 0)["ofd"].item() == OverhaulKD.minimum


def test_margins_survive_a_checkpoint() -> None:
    first, second = OverhaulKD(), OverhaulKD()
    teacher = side(WIDE_CNN)
    for method in (first, second):
        method.prepare(setup(side(SLIM_CNN), teacher))
    shifted = outputs(teacher, 1)
    shifted = type(shifted)(shifted.logits, {tap: x - 0.5 for tap, x in shifted.features.items()}, shifted.embeddings)
    first.loss(outputs(side(SLIM_CNN), 0), shifted, batch(), 0)
    first.after_step(0)
    second.load_state_dict(first.state_dict())
    assert second.negatives[0].number.sum() > 0 and torch.equal(second.negatives[2].total, first.negatives[2].total)
