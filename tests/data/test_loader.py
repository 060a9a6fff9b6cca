"""The loader: images kept on a device, made by workers or made here are the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.data.augment import Augment, mixup, normalise
from edgekd.data.loader import Loader

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), np.uint8)
PLAN = [
    (np.array([3, 19, 3]), 0),
    (np.array([0, 1, 2]), np.array([4, 5, 6])),
    (np.array([7, 8, 9]), 2),
]


@pytest.mark.parametrize("augment", [Augment(1, 2, True), Augment(1, 0, False), Augment(2, 3, False)])
@pytest.mark.parametrize("options", [{"resident": True}, {"workers": 1}])
def test_all_ways_give_the_same_bytes(options: dict[str, bool], augment: Augment) -> None:
    here = list(Loader(IMAGES, augment, CPU)(PLAN))
    there = list(Loader(IMAGES, augment, CPU, **options)(PLAN))
    assert len(here) == len(there) == 3
    for a, b in zip(here, there, strict=True):
        assert isinstance(a, np.ndarray) and isinstance(b, torch.Tensor) and b.dtype == torch.uint8
        assert np.array_equal(a, b.numpy())


def test_tensors_are_normalised_and_mixed_as_arrays_are() -> None:
    there = torch.from_numpy(IMAGES)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    assert torch.equal(normalise(IMAGES, mean, std), normalise(there, mean, std))
    assert np.array_equal(mixup(IMAGES, 0.3), mixup(there, 0.3).numpy())


def test_mixing_by_hand() -> None:
    images = np.array([10, 20, 200], np.uint8).reshape(3, 1, 1, 1)
    assert mixup(images, 0.9).ravel().tolist() == [29, 20, 181]
    assert np.array_equal(mixup(images, 1.0), images)
