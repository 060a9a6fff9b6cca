from __future__ import annotations

import numpy as np
import pytest

from edgekd.data.dataset import Split, channel_statistics, split_off
from edgekd.errors import DataError

LABELS = np.repeat([0, 1, 2], [100, 50, 4])
WHOLE = Split(np.arange(154, dtype=np.uint8).reshape(154, 1, 1, 1), LABELS)
CLASSES = ("a", "b", "c")


def test_a_split_is_stratified_disjoint_and_whole() -> None:
    rest, held = split_off(WHOLE, 0.1, 0, "val", CLASSES)
    assert np.bincount(held.labels).tolist() == [10, 5, 1]  # at least one of the rare class
    assert np.bincount(rest.labels).tolist() == [90, 45, 3]
    numbers = np.concatenate([rest.images.ravel(), held.images.ravel()])
    assert np.array_equal(np.sort(numbers), np.arange(154))
    assert np.array_equal(LABELS[held.images.ravel()], held.labels)


def test_a_split_follows_its_seed_and_purpose() -> None:
    def held(seed: int, purpose: str) -> list[int]:
        return split_off(WHOLE, 0.1, seed, purpose, CLASSES)[1].images.ravel().tolist()

    assert held(0, "val") == held(0, "val")
    assert held(0, "val") != held(1, "val")
    assert held(0, "val") != held(0, "test")


def test_two_images_split_into_one_and_one_and_one_is_refused() -> None:
    small = Split(np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 0, 1, 1]))
    rest, held = split_off(small, 0.9, 0, "test", CLASSES[:2])
    assert rest.labels.tolist() == held.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="class 'a' has 1 image left"):
        split_off(rest, 0.1, 0, "val", CLASSES[:2])


def test_statistics_are_exact_over_chunks() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9000, 3, 2, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-9)


def test_a_constant_channel_is_harmless_and_constant_images_are_refused() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 2, 2, 3), dtype=np.uint8)
    images[..., 2] = 7
    assert channel_statistics(images)[1][2] == 1.0
    with pytest.raises(DataError, match="one and the same value"):
        channel_statistics(np.full((9, 2, 2, 3), 7, np.uint8))
