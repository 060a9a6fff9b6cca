"""Ranges read off values whose good range is known."""

from __future__ import annotations

import pytest
import torch

from edgekd.quantize.calibrators import CALIBRATORS

FAR = 40.0  # one value, far from all others


def observed(calibrator: str, x: torch.Tensor, *, affine: bool = True) -> tuple[float, float]:
    """The range [low, high] of 8 bits, as unsigned affine or signed symmetric values."""
    low, high = (0, 255) if affine else (-127, 127)
    options = {
        "dtype": torch.uint8 if affine else torch.int8,
        "quant_min": low,
        "quant_max": high,
        "qscheme": torch.per_tensor_affine if affine else torch.per_tensor_symmetric,
    }
    observer = CALIBRATORS[calibrator](**options)
    observer(x)
    scale, zero = observer.calculate_qparams()
    return float(scale * (low - zero)), float(scale * (high - zero))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("calibrator", ["percentile", "mse", "entropy"])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_one_far_value_does_not_take_the_levels(calibrator: str, affine: bool, zeros: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(200_000).abs() * (torch.rand(200_000) >= zeros)  # behind a ReLU, many are zero
    x[0] = FAR
    low, high = observed(calibrator, x, affine=affine)
    assert high < 0.5 * FAR
    assert high > 3.0  # and the others keep theirs: the zeros do not pull the range to themselves
    assert low == pytest.approx(0.0 if affine else -high, abs=1e-5)


def test_minmax_holds_every_value() -> None:
    x = torch.tensor([-1.0, 0.5, FAR])
    low, high = observed("minmax", x)
    step = (FAR + 1) / 255
    assert low == pytest.approx(-1.0, abs=step) and high == pytest.approx(FAR, abs=step)


def test_signs_share_the_levels() -> None:
    torch.manual_seed(0)
    x = torch.randn(200_000)
    low, high = observed("entropy", x)
    assert -low > 3.0 and high > 3.0 and max(-low, high) < 6.0
