"""The helpers of the feature methods: pairing, folding, sizes, precision; and random numbers from a counter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from making_features import SLIM_CNN, VIT, WIDE_CNN, setup, side
from torch import nn

from edgekd.distill.methods import _counter
from edgekd.distill.methods._base import Outputs
from edgekd.distill.methods._features import (
    fold,
    frozen,
    full_precision,
    leading_tokens,
    map_shape,
    pair_taps,
    same_size,
    seeded,
    teacher_side,
)
from edgekd.errors import ConfigError


def named(student: int, teacher: int) -> list[tuple[str, str]]:
    sides = (side({f"{name}{i}": (4, 2, 2) for i in range(n)}) for name, n in (("s", student), ("t", teacher)))
    return [(pair.student, pair.teacher) for pair in pair_taps(setup(*sides), "at")]


def test_taps_pair_by_relative_depth() -> None:
    assert named(3, 3) == [("s0", "t0"), ("s1", "t1"), ("s2", "t2")]
    assert named(2, 4) == [("s0", "t1"), ("s1", "t3")]  # halfway and the end
    assert named(4, 3) == [("s0", "t0"), ("s2", "t1"), ("s3", "t2")]  # thirds of four: 1.33, 2.67, 4
    assert named(12, 1) == [("s11", "t0")]
    for n in range(1, 13):
        for m in range(1, 13):
            student, teacher = zip(*named(n, m), strict=True)
            assert len(set(student)) == len(set(teacher)) == min(n, m)


def test_pairs_know_the_channels_of_maps_and_tokens() -> None:
    pairs = pair_taps(setup(side(VIT), side(WIDE_CNN)), "at")
    assert [(p.c_student, p.c_teacher) for p in pairs] == [(12, 16), (12, 24)]


@pytest.mark.parametrize(("n", "leading"), [(16, 0), (17, 1), (18, 2), (21, 5), (197, 1), (198, 2), (1, 0), (24, None)])
def test_leading_tokens(n: int, leading: int | None) -> None:
    assert leading_tokens(n) == leading


def test_tokens_fold_row_by_row_without_the_class_token() -> None:
    tokens = torch.arange(5.0)[None, :, None] * torch.tensor([1.0, 10.0])  # [1, 5, 2], the first is the class token
    assert fold(tokens, "x").tolist() == [[[[1, 2], [3, 4]], [[10, 20], [30, 40]]]]
    assert map_shape((5, 2), "x") == (2, 2, 2)


def test_sizes_are_pooled_to_the_smaller_of_each_side() -> None:
    a, b = same_size(torch.arange(8.0).view(1, 1, 2, 4), torch.ones(1, 3, 4, 2))
    assert a.shape == (1, 1, 2, 2) and b.shape == (1, 3, 2, 2)
    assert a.flatten().tolist() == [0.5, 2.5, 4.5, 6.5]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (side(SLIM_CNN | {"odd": (24, 7)}), "odd gives features of shape"),
        (replace(side(SLIM_CNN), shapes={"flat": (7,)}), "flat gives"),
        (replace(side(SLIM_CNN), shapes={}), "student has no tapped features"),
    ],
)
def test_unfit_features_are_refused(network, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pair_taps(setup(network, side(WIDE_CNN)), "at")


def test_a_method_that_needs_the_network_refuses_stored_logits() -> None:
    with pytest.raises(ConfigError, match=r"distill.method srrl needs the teacher network"):
        teacher_side(setup(side(SLIM_CNN), None), "srrl")


def test_frozen_copy_is_neither_trained_nor_stored() -> None:
    holder, classifier = nn.Module(), nn.Linear(2, 2)
    holder.kept = frozen(classifier)  # type: ignore[assignment]
    assert not list(holder.parameters()) and not holder.state_dict()
    assert classifier.weight.requires_grad and not holder.kept[0].weight.requires_grad


def test_adapters_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    with seeded(5):
        first = nn.Linear(3, 3).weight
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    with seeded(5):
        assert torch.equal(nn.Linear(3, 3).weight, first)


def test_full_precision_turns_autocast_off_inside_alone() -> None:
    @full_precision
    def loss(self: object, student: Outputs) -> dict[str, torch.Tensor]:
        return {"product": student.logits @ student.logits.T}

    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(None, Outputs(x))["product"].dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16


def test_counter_is_splitmix64() -> None:
    first = int(_counter._mix(torch.tensor([0]))[0]) % (1 << 64)
    assert first == 0xE220A8397B1DCDAF  # the published generator's first number from state 0


def test_draws_are_uniform_and_follow_the_sample() -> None:
    samples = torch.tensor([4, 9, 2])
    x = _counter.uniform(7, 11, samples, 20000)
    assert 0 <= x.min() and x.max() < 1 and x.std().item() == pytest.approx(12**-0.5, abs=0.005)
    assert x.mean(1).sub(0.5).abs().max() < 0.01
    assert torch.equal(_counter.uniform(7, 11, samples.flip(0), 20000), x.flip(0))
    for seed, step in ((7, 12), (8, 11)):
        assert not torch.equal(_counter.uniform(seed, step, samples, 20000), x)
    assert abs(torch.corrcoef(x)[0, 1]) < 0.03
