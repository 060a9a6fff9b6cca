from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from making_data import SHARED, make_images, write_parquet, write_sheets
from PIL import Image

from edgekd.data import data_digest, load_dataset

Npz = Callable[..., Path]


# ---- folders


def test_folder_with_train_and_test(folder: Path) -> None:
    data = load_dataset(str(folder), val_fraction=0.1)
    assert (data.name, data.classes, data.input_shape, data.num_classes) == ("pets", ("cat", "dog"), (3, 8, 8), 2)
    assert data.flips
    assert (len(data.train), len(data.val), len(data.test)) == (36, 4, 12)
    for split in (data.train, data.val, data.test):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
        assert np.array_equal(split.images[:, 0, 0, 0], split.labels * 10)
    assert np.array_equal(data.test.images[:6], make_images(np.zeros(6, int)))
    scaled = data.train.images / 255
    np.testing.assert_allclose(data.mean, scaled.mean(axis=(0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(data.std, scaled.std(axis=(0, 1, 2)), atol=1e-9)


def test_folder_of_classes_is_split_from_the_seed(folder: Path) -> None:
    data = load_dataset(str(folder / "train"), val_fraction=0.125)
    assert (len(data.train), len(data.val), len(data.test)) == (28, 4, 8)


def test_a_class_may_be_called_train(tmp_path: Path, folder: Path) -> None:
    vehicles = tmp_path / "vehicles"
    shutil.copytree(folder / "train" / "cat", vehicles / "bus")
    shutil.copytree(folder / "train" / "dog", vehicles / "train")
    assert load_dataset(str(vehicles)).classes == ("bus", "train")


def test_given_val_folder_is_val_beside_test_and_test_without(folder: Path) -> None:
    shutil.copytree(folder / "test", folder / "val")
    shutil.rmtree(folder / "test" / "dog")
    shutil.copytree(folder / "test" / "cat", folder / "test" / "dog")
    data = load_dataset(str(folder))
    assert (len(data.train), len(data.val), len(data.test)) == (40, 12, 12)
    assert np.array_equal(data.val.images[6:, 0, 0, 0], [10] * 6) and not data.test.images[:, 0, 0, 0].any()
    shutil.rmtree(folder / "test")
    data = load_dataset(str(folder), val_fraction=0.1)
    assert (len(data.train), len(data.val), len(data.test)) == (36, 4, 12)


def test_folder_takes_the_most_common_size_and_mixed_modes(folder: Path) -> None:
    cat = folder / "train" / "cat"
    Image.fromarray(np.full((30, 60, 3), (200, 0, 50), np.uint8)).save(cat / "wide.jpg")
    Image.fromarray(np.full((5, 5), 77, np.uint8)).save(cat / "small_grey.png")
    Image.fromarray(np.full((8, 8), 1, np.uint8), "L").convert("P").save(cat / "palette.gif")
    Image.fromarray(np.full((8, 8, 4), (9, 8, 7, 100), np.uint8)).save(cat / "alpha.png")
    (cat / "nested").mkdir()
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(cat / "nested" / "deep.png")
    (cat / ".DS_Store").write_bytes(b"x")
    (cat / "notes.txt").write_text("x")
    data = load_dataset(str(folder))
    assert data.input_shape == (3, 8, 8)
    both = np.concatenate([data.train.images, data.val.images])
    assert len(both) == 45
    for colour in ((200, 0, 50), (77, 77, 77), (1, 1, 1), (9, 8, 7), (255, 255, 255)):
        assert (np.abs(both.astype(int) - colour).max(axis=(1, 2, 3)) <= 2).sum() == 1, colour


def test_image_size_resizes_about_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, 8:24] = 255  # the central square
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(pixels).save(tmp_path / "d" / name / f"{i}.png")
            pixels[0, 0] = i
    Image.fromarray(255 - pixels).save(tmp_path / "d" / "a" / "other.png")
    data = load_dataset(str(tmp_path / "d"), image_size=8)
    assert data.input_shape == (3, 8, 8)
    means = np.concatenate([data.train.images, data.val.images, data.test.images]).mean(axis=(1, 2, 3))
    assert (means > 250).sum() == 8 and (means < 5).sum() == 1


def test_grey_folder_has_one_channel_and_no_flips(tmp_path: Path) -> None:
    for label, name in enumerate("ab"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((6, 6), label * 100 + i, np.uint8)).save(tmp_path / "d" / name / f"{i}.png")
    data = load_dataset(str(tmp_path / "d"))
    assert data.input_shape == (1, 6, 6) and not data.flips and len(data.mean) == 1


# ---- npz


@pytest.mark.parametrize(
    "layout",
    ["NHWC", "NCHW", "float", "int64", "labels [N, 1]"],
)
def test_npz_layouts_are_one(npz: Npz, layout: str) -> None:
    plain = load_dataset(str(npz()))
    y = np.arange(40) % 2
    x = make_images(y)
    changes = {
        "NHWC": {"x_train": x},
        "NCHW": {"x_train": x.transpose(0, 3, 1, 2)},
        "float": {"x_train": (x / 255).astype(np.float32)},
        "int64": {"x_train": x.astype(np.int64)},
        "labels [N, 1]": {"y_train": y[:, None].astype(np.uint8)},
    }[layout]
    data = load_dataset(str(npz(**changes)))
    assert np.array_equal(data.train.images, plain.train.images)
    assert np.array_equal(data.train.labels, plain.train.labels)
    assert np.array_equal(data.test.images, make_images(np.arange(12) % 2))


@pytest.mark.parametrize("x, y", [("{}_x", "{}_y"), ("{}_images", "{}_labels"), ("X_{}", "y_{}")])
def test_npz_key_styles(tmp_path: Path, x: str, y: str) -> None:
    labels = np.arange(20) % 2
    arrays = {x.format(s): make_images(labels, channels=1)[..., 0] for s in ("train", "val", "test")}
    arrays |= {y.format(s): labels for s in ("train", "val", "test")}
    np.savez(tmp_path / "a.npz", classes=np.array(["no", "yes"]), **arrays)
    data = load_dataset(str(tmp_path / "a.npz"), image_size=16)
    assert (len(data.train), len(data.val), len(data.test)) == (20, 20, 20)
    assert data.classes == ("no", "yes") and data.input_shape == (1, 16, 16) and not data.flips


def test_npz_of_one_pair_is_split(tmp_path: Path) -> None:
    labels = np.arange(100) % 2
    np.savez(tmp_path / "a.npz", images=make_images(labels), labels=labels)
    data = load_dataset(str(tmp_path / "a.npz"), val_fraction=0.1)
    assert (len(data.train), len(data.val), len(data.test)) == (72, 8, 20) and data.classes == ("0", "1")


# ---- parquet, sheets, digits


@pytest.mark.parametrize("under", ["", "data"])
def test_parquet_folder(tmp_path: Path, under: str) -> None:
    labels = np.arange(40) % 2
    write_parquet(tmp_path / under / "train-00000-of-00002.parquet", labels, names=["cat", "dog"])
    write_parquet(tmp_path / under / "train-00001-of-00002.parquet", labels)
    test = write_parquet(tmp_path / under / "test-00000-of-00001.parquet", labels[:10], struct=False)
    data = load_dataset(str(tmp_path), val_fraction=0.1)
    assert (len(data.train), len(data.val), len(data.test)) == (72, 8, 10)
    assert data.classes == ("cat", "dog") and np.array_equal(data.test.images, test)


def test_parquet_file_is_split(tmp_path: Path) -> None:
    write_parquet(tmp_path / "all.parquet", np.arange(50) % 2)
    data = load_dataset(str(tmp_path / "all.parquet"))
    assert (len(data.train), len(data.val), len(data.test)) == (38, 2, 10) and data.input_shape == (3, 8, 8)


def test_sheets(tmp_path: Path) -> None:
    made = write_sheets(tmp_path / "s.zip", {"train": 230, "test": 100}, ["a", "b"])
    data = load_dataset(str(tmp_path / "s.zip"), val_fraction=0.1)
    assert (len(data.train), len(data.val), len(data.test)) == (206, 24, 100)
    assert np.array_equal(data.test.images, made["test"]) and data.classes == ("a", "b")
    held = {image.tobytes() for split in (data.train, data.val) for image in split.images}
    assert held == {image.tobytes() for image in made["train"]}


def test_digits() -> None:
    data = load_dataset("digits")
    assert data.input_shape == (1, 8, 8) and data.num_classes == 10 and not data.flips and data.name == "digits"
    assert len(data.train) + len(data.val) + len(data.test) == 1797
    assert data.train.images.max() == 255 and data.train.images.min() == 0
    assert load_dataset("digits", image_size=16).input_shape == (1, 16, 16)
    assert data.digest == data_digest("digits")


# ---- digests


def test_digest_is_of_the_content_and_not_of_the_path(folder: Path, tmp_path: Path, npz: Npz) -> None:
    digest = load_dataset(str(folder)).digest
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert data_digest(str(folder)) == digest == data_digest(str(moved))
    (moved / "test" / "cat" / "000.png").rename(moved / "test" / "cat" / "999.png")
    assert data_digest(str(moved)) != digest
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "train" / "cat" / "000.png")
    assert data_digest(str(folder)) != digest

    file = npz()
    digest = load_dataset(str(file)).digest
    assert data_digest(str(file.rename(tmp_path / "other.npz"))) == digest
    assert data_digest(str(npz(y_test=1 - np.arange(12) % 2))) != digest


@pytest.mark.slow
@pytest.mark.parametrize("name, classes", [("cifar10", 10), ("cifar100", 100)])
def test_cifar_archive(name: str, classes: int) -> None:
    path = SHARED / f"{name}_train6bit_testexact.zip"
    if not path.exists():
        pytest.skip(f"{path.name} is not in ../shared/data")
    start = time.perf_counter()
    data = load_dataset(str(path))
    assert time.perf_counter() - start < 8
    assert data.num_classes == classes and data.input_shape == (3, 32, 32) and data.flips
    for split, count in ((data.train, 47_500), (data.val, 2_500), (data.test, 10_000)):
        assert split.images.shape == (count, 32, 32, 3)
        assert np.bincount(split.labels).tolist() == [count // classes] * classes
    start = time.perf_counter()
    assert data_digest(str(path)) == data.digest
    assert time.perf_counter() - start < 2
