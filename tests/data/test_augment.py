from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from edgekd.data.augment import Augment, epoch_order, mixup, normalise

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(1, 256, (64, 32, 32, 3), dtype=np.uint8)
SAMPLES = RNG.permutation(1000)[:64]


def test_views_are_remade_in_any_order_and_batch() -> None:
    augment = Augment(seed=3, pad=4, flip=True)
    views = np.arange(64) % 5
    made = augment(IMAGES, SAMPLES, views)
    order = RNG.permutation(64)
    assert np.array_equal(augment(IMAGES[order], SAMPLES[order], views[order]), made[order])
    assert np.array_equal(augment(IMAGES[7:8], SAMPLES[7:8], int(views[7])), made[7:8])
    assert np.array_equal(Augment(3, 4, True)(IMAGES, SAMPLES, views), made)


@pytest.mark.parametrize("other", ["seed", "view", "sample"])
def test_seed_view_and_sample_each_change_the_draw(other: str) -> None:
    one = Augment(3, 4, True).draws(SAMPLES, 0)
    changed = {
        "seed": lambda: Augment(4, 4, True).draws(SAMPLES, 0),
        "view": lambda: Augment(3, 4, True).draws(SAMPLES, 1),
        "sample": lambda: Augment(3, 4, True).draws(SAMPLES + 1, 0),
    }[other]()
    for name, a, b in zip(("top", "left", "mirrored"), one, changed, strict=True):
        differ = np.mean(a != b)
        assert differ == 1 if (name, other) == ("mirrored", "view") else 0 < differ < 1


def test_every_other_view_is_mirrored() -> None:
    mirrored = np.array([Augment(3, 4, True).draws(SAMPLES, view)[2] for view in range(8)])
    assert (mirrored[1:] != mirrored[:-1]).all()
    assert 0.3 < mirrored[0].mean() < 0.7


def test_each_view_is_the_padded_crop_that_its_draw_says() -> None:
    augment = Augment(seed=1, pad=2, flip=True)
    made = augment(IMAGES, SAMPLES, 9)
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    top, left, mirrored = augment.draws(SAMPLES, 9)
    for i in range(64):
        crop = padded[i, top[i] : top[i] + 32, left[i] : left[i] + 32]
        assert np.array_equal(made[i], np.flip(crop, axis=1) if mirrored[i] else crop)
    assert mirrored.any() and not mirrored.all()
    outside = (made == 0).all(axis=-1)  # no pixel of IMAGES is black, so black is the padding
    assert np.array_equal(outside.any(axis=(1, 2)), (top != 2) | (left != 2))


def test_offsets_are_uniform_and_independent_and_half_is_mirrored() -> None:
    n, cells = 90_000, 9
    top, left, mirrored = Augment(seed=0, pad=4, flip=True).draws(np.arange(n), np.arange(n) % 7)
    counts = np.bincount(top * cells + left, minlength=cells**2)
    expected = n / cells**2
    chi2 = ((counts - expected) ** 2 / expected).sum()  # 80 degrees of freedom: 99.99 % lie below 136
    assert counts.size == cells**2 and chi2 < 136
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / n**0.5
    for offsets in (top, left):
        assert abs(np.corrcoef(offsets, mirrored)[0, 1]) < 4 / n**0.5


def test_views_of_one_sample_are_uniform_too() -> None:
    top, _, mirrored = Augment(seed=0, pad=1, flip=True).draws(np.full(9000, 17), np.arange(9000))
    assert np.abs(np.bincount(top) - 3000).max() < 4 * (9000 * 2 / 9) ** 0.5
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / 9000**0.5


def test_no_padding_and_no_flip_change_nothing() -> None:
    made = Augment(seed=5, pad=0, flip=False)(IMAGES, SAMPLES, 2)
    assert np.array_equal(made, IMAGES) and not np.shares_memory(made, IMAGES)


def test_grey_images_and_other_shapes() -> None:
    grey = RNG.integers(0, 256, (5, 8, 10, 1), dtype=np.uint8)
    assert Augment(0, 1, False)(grey, np.arange(5), 0).shape == (5, 8, 10, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalise(channels: int) -> None:
    images, mean, std = IMAGES[..., :channels], (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    made = normalise(images, mean, std)
    expected = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert made.dtype == torch.float32 and made.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-6)
    assert torch.equal(normalise(images[5:6], mean, std)[0], made[5])


def test_normalise_takes_read_only_images() -> None:
    images = IMAGES.copy()
    images.flags.writeable = False
    assert torch.equal(normalise(images, (0.5,) * 3, (0.2,) * 3), normalise(IMAGES, (0.5,) * 3, (0.2,) * 3))


def test_epoch_order_is_a_permutation_of_seed_and_epoch() -> None:
    order = epoch_order(100, seed=1, epoch=2)
    assert order.dtype == np.int64 and np.array_equal(np.sort(order), np.arange(100))
    assert np.array_equal(order, epoch_order(100, 1, 2))
    assert not np.array_equal(order, epoch_order(100, 1, 3))
    assert not np.array_equal(order, epoch_order(100, 2, 2))


def test_a_batch_is_augmented_much_faster_than_it_trains() -> None:
    images, samples, augment = np.repeat(IMAGES, 2, axis=0), np.arange(128), Augment(0, 4, True)
    times = []
    for view in range(20):
        start = time.perf_counter()
        normalise(augment(images, samples, view), (0.5,) * 3, (0.2,) * 3)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.007  # 5 % of the 142 ms that 128 images take at 900 images a second


def test_images_mix_by_one_share_or_by_one_each() -> None:
    shares = np.linspace(0, 1, 64, dtype=np.float32)
    expected = shares[:, None, None, None] * IMAGES + (1 - shares[:, None, None, None]) * IMAGES[::-1]
    for images in (IMAGES, torch.from_numpy(IMAGES)):
        mixed = np.asarray(mixup(images, shares))
        assert mixed.dtype == np.uint8 and np.abs(mixed - expected).max() <= 0.5 + 1e-3
        one = np.full(64, 0.25, np.float32)
        assert np.array_equal(np.asarray(mixup(images, one)), np.asarray(mixup(images, 0.25)))
