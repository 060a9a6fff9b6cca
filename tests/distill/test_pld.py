"""PLD by hand and against its published gradients, its special cases, and what a wrong teacher does."""

from __future__ import annotations

import math

import pytest
import torch
from logit_rows import prepared, random_rows, run
from torch import Tensor
from torch.nn import functional as F

from edgekd.config import MethodChoice
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.pld import PLD, choices, ranking, surprises
from edgekd.errors import ConfigError

S, T = torch.tensor([[2, 0.5, -1, 0]]), torch.tensor([[3, 1, -2, 0.5]])


def loss(label: int, temperature: float, student: Tensor = S, **options: float) -> Tensor:
    terms = run(prepared(PLD(temperature=temperature, **options)), student, T, torch.tensor([label]))
    assert list(terms) == ["ce", "pld"]
    return sum(terms.values(), torch.zeros(()))


@pytest.mark.parametrize(
    ("label", "value", "order", "weights", "gradient"),
    [
        (
            0,
            0.367456,
            [0, 1, 3, 2],
            [0.816888, 0.110554, 0.067054, 0.005504],
            [-0.236816, 0.079301, 0.060396, 0.097119],
        ),
        (
            1,
            0.363429,
            [1, 0, 3, 2],
            [0.110554, 0.816888, 0.067054, 0.005504],
            [-0.049098, -0.093037, 0.056260, 0.085875],
        ),
    ],
)
def test_golden_values(label: int, value: float, order: list[int], weights: list[float], gradient: list[float]) -> None:
    assert ranking(T, torch.tensor([label])).tolist() == [order]
    assert choices(S, T, torch.tensor([label]))[0][0].tolist() == pytest.approx(weights, abs=1e-6)
    student = S.clone().requires_grad_()
    found = loss(label, 1.0, student)
    found.backward()
    assert found.item() == pytest.approx(value, abs=1e-6)
    assert student.grad[0].tolist() == pytest.approx(gradient, abs=1e-6)
    assert student.grad.sum().item() == pytest.approx(0, abs=1e-6)


def test_a_softer_teacher() -> None:
    assert loss(1, 4.0).item() == pytest.approx(0.599171, abs=1e-6)


def test_choices_by_hand() -> None:
    # odds 4 : 2 : 1 : 1, chosen in the order 1, 0, 3, 2: 2/8, then 4/6, then 1/2, then the last
    student = torch.tensor([[4.0, 2, 1, 1]]).log()
    expected = [math.log(4), math.log(3 / 2), math.log(2), 0]
    assert surprises(student, torch.tensor([[1, 0, 3, 2]]))[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert surprises(student, torch.tensor([[1, 0]]))[0].tolist() == pytest.approx(expected[:2], abs=1e-6)


def test_a_sure_teacher_leaves_cross_entropy() -> None:
    student, _, labels = random_rows()
    sure = 50 * F.one_hot(labels, 5).float()
    total = sum(run(prepared(PLD(), 5), student, sure, labels).values()).item()
    assert total == pytest.approx(F.cross_entropy(student, labels).item(), rel=1e-5)


def test_equal_logits_keep_their_order() -> None:
    assert ranking(torch.zeros(1, 40), torch.tensor([7])).tolist() == [[7, *range(7), *range(8, 40)]]


def test_the_first_choices_are_those_of_the_whole_ranking() -> None:
    student, teacher, labels = random_rows(k=9)
    weights, costs = choices(student, teacher, labels)
    for top in (1, 4, 9, 20):
        few = choices(student, teacher, labels, top=top)
        assert torch.allclose(few[0], weights[:, :top]) and torch.allclose(few[1], costs[:, :top], atol=1e-6)


def test_a_short_ranking_needs_no_stored_tail() -> None:
    for options, needs, top in (({}, ("labels", "all_logits"), 0), ({"top": 3}, ("labels",), 3)):
        _, row = make_method([MethodChoice("pld", options)], 0.0, 0)
        assert (row.needs, row.top_logits) == (needs, top)


def test_a_floor_holds_the_label_against_a_wrong_teacher() -> None:
    gradients = []
    for floor in (0.0, 0.9):
        student = S.clone().requires_grad_()
        loss(1, 1.0, student, floor=floor).backward()
        gradients.append(student.grad[0])
    assert gradients[1][1] < 3 * gradients[0][1] < 0  # the label's
    assert gradients[1][0] > 0 > gradients[0][0]  # that of the class which the teacher takes for it
    assert loss(0, 1.0, floor=0.5).item() == pytest.approx(loss(0, 1.0).item())


def test_without_labels_it_warns_and_ranks_as_the_teacher() -> None:
    with pytest.warns(UserWarning, match="no finite minimum"):
        weights, costs = choices(S, T, None)
    assert (weights * costs).sum().item() == pytest.approx(loss(0, 1.0).item())


def test_smoothing_is_on_the_first_choice() -> None:
    plain, smooth = (run(prepared(PLD(label_smoothing=x)), S, T, torch.tensor([0])) for x in (0.0, 0.2))
    expected = 0.816888 * F.cross_entropy(S, torch.tensor([0]), label_smoothing=0.2)
    assert smooth["ce"].item() == pytest.approx(expected.item(), rel=1e-5) and smooth["pld"] == plain["pld"]


def test_a_bad_top_is_named() -> None:
    with pytest.raises(ConfigError, match="distill.method pld: top is 0"):
        PLD(top=0)
