"""FitNet: values by hand with the regressor an identity."""

from __future__ import annotations

import pytest
import torch
from making_features import SLIM_CNN, WIDE_CNN, batch, maps, one_tap, setup, side
from torch import nn

from edgekd.distill.methods.fitnet import FitNet
from edgekd.errors import ConfigError


def test_mean_squared_error_at_the_smaller_size_by_hand() -> None:
    student, teacher = torch.full((1, 1, 1, 1), 0.5), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    method = FitNet()
    method.prepare(one_tap(student, teacher))
    method.regressor = nn.Identity()
    terms = method.loss(*maps(student, teacher), batch(1), 0)
    assert terms["fitnet"].item() == pytest.approx(100 * (2.5 - 0.5) ** 2)
    assert method.loss(*maps(teacher, teacher), batch(1), 0)["fitnet"].item() == FitNet.minimum


def test_the_hint_is_the_middle_pair_unless_named() -> None:
    dry_run = setup(side(SLIM_CNN), side(WIDE_CNN))
    for hint, taps in ((None, ("stage2", "layer2")), (0, ("stem", "layer1")), (2, ("stage3", "layer3"))):
        method = FitNet(hint=hint)
        method.prepare(dry_run)
        assert [(p.student, p.teacher) for p in method.pairs] == [taps]
    with pytest.raises(ConfigError, match="hint 3 of 3"):
        FitNet(hint=3).prepare(dry_run)


def test_the_regressor_takes_the_students_channels_to_the_teachers() -> None:
    method = FitNet()
    method.prepare(setup(side(SLIM_CNN), side(WIDE_CNN)))
    assert method.regressor(torch.randn(2, 6, 4, 4)).shape == (2, 16, 4, 4)
