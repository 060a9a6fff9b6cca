"""MGD: values by hand with nothing and with everything hidden, and the masks."""

from __future__ import annotations

import pytest
import torch
from making_features import batch, maps, one_tap
from torch import nn

from edgekd.distill.methods.mgd import MaskedGeneration
from edgekd.errors import ConfigError

STUDENT = torch.arange(8.0).view(2, 1, 2, 2)
TEACHER = STUDENT + torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.0, (4 * 1 + 4 * 4) / 2), (1.0, (1 + 4 + 9 + 16 + 36 + 49 + 64 + 81) / 2)],  # seen whole; not at all: F_t^2
)
def test_value_by_hand(ratio: float, expected: float) -> None:
    method = MaskedGeneration(ratio=ratio)
    method.prepare(one_tap(STUDENT, TEACHER))
    method.generate = nn.Identity()
    assert method.loss(*maps(STUDENT, TEACHER), batch(2), 0)["mgd"].item() == pytest.approx(7e-5 * expected)


def test_channels_are_aligned_only_where_they_differ() -> None:
    method = MaskedGeneration()
    method.prepare(one_tap(torch.zeros(1, 3, 2, 2), torch.zeros(1, 5, 2, 2)))
    assert isinstance(method.align, nn.Conv2d)
    method.prepare(one_tap(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)))
    assert isinstance(method.align, nn.Identity)


@pytest.mark.parametrize(("mask", "shape"), [("channels", (4, 512, 1, 1)), ("positions", (4, 1, 16, 32))])
def test_masks_hide_the_share_and_follow_step_and_sample(mask: str, shape: tuple[int, ...]) -> None:
    method = MaskedGeneration(ratio=0.3, mask=mask)
    x, given = torch.zeros(4, 512, 16, 32), batch(samples=[5, 0, 9, 2])
    visible = method.visible(x, given, 7)
    assert visible.shape == shape and set(visible.unique().tolist()) == {0.0, 1.0}
    assert visible.mean().item() == pytest.approx(0.7, abs=0.04)
    assert torch.equal(method.visible(x, batch(samples=[2, 9, 0, 5]), 7), visible.flip(0))
    assert not torch.equal(method.visible(x, given, 8), visible)


def test_an_unknown_mask_is_refused() -> None:
    with pytest.raises(ConfigError, match="mask 'pixels'"):
        MaskedGeneration(mask="pixels")
