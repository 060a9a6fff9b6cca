"""Every input that cannot be used gives one DataError that names the file or field and ends with what to do."""

from __future__ import annotations

import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making_data import make_images, png, write_parquet, write_sheets
from PIL import Image

import edgekd.data.readers._base as base
from edgekd.data import data_digest, load_dataset
from edgekd.errors import DataError

Npz = Callable[..., Path]
Y = np.arange(40) % 2
X = make_images(Y)


def refuse(path: Path | str, *named: str, **options: float) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(str(path), **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert caught.value.fix.endswith(".") and "\n" not in caught.value.what
    for text in named:
        assert text in caught.value.what, caught.value.what


# ---- paths and fields


def test_missing_path(tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere", str(tmp_path / "nowhere"), "does not exist")
    with pytest.raises(DataError, match="does not exist"):
        data_digest(str(tmp_path / "nowhere"))


def test_file_of_an_unknown_kind(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x")
    refuse(tmp_path / "data.csv", "data.csv", "no reader")


def test_fields(npz: Npz) -> None:
    refuse(npz(), "val_fraction", val_fraction=1.5)
    refuse(npz(), "image_size", image_size=0)


def test_images_that_do_not_fit_into_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 1000}[name])
    refuse(folder, "40 images of 8x8", "memory")


# ---- folders


def test_empty_folder(tmp_path: Path) -> None:
    refuse(tmp_path, str(tmp_path), "no class folders")


def test_images_without_class_folders(folder: Path) -> None:
    refuse(folder / "train" / "cat", "no class folders")


def test_test_without_train(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    refuse(folder, "test/ but no train/")


def test_empty_class(folder: Path) -> None:
    (folder / "train" / "eel").mkdir()
    (folder / "train" / "eel" / "notes.txt").write_text("x")
    refuse(folder, str(folder / "train" / "eel"), "no image")


@pytest.mark.parametrize("content", [b"not an image", b"", None])
def test_corrupt_image(folder: Path, content: bytes | None) -> None:
    file = folder / "train" / "dog" / "003.png"
    file.write_bytes(file.read_bytes()[:100] if content is None else content)
    refuse(folder, str(file))


def test_truncated_jpeg(folder: Path) -> None:
    file = folder / "test" / "dog" / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    refuse(folder, str(file))


def test_thirty_two_bit_image(folder: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "train" / "dog" / "x.tif")
    refuse(folder, "x.tif", "32 bits")


def test_mismatched_classes(folder: Path) -> None:
    (folder / "test" / "dog").rename(folder / "test" / "wolf")
    refuse(folder, "'dog'", "in train/ but not in test/")
    shutil.copytree(folder / "test" / "wolf", folder / "test" / "dog")
    refuse(folder, "'wolf'", "in test/ but not in train/")


def test_one_class(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.rmtree(folder / split / "dog")
    refuse(folder, "one class 'cat'")


def test_too_few_images_for_a_split(folder: Path) -> None:
    for i in range(1, 20):
        (folder / "train" / "cat" / f"{i:03}.png").unlink()
    refuse(folder, "'cat'", "val split")
    refuse(folder / "train", "'cat'", "test split")


# ---- npz


def nan_at(value: float) -> np.ndarray:
    x = (X / 255).astype(np.float32)
    x[7, 0, 0, 0] = value
    return x


BAD_ARRAYS = [
    ({"x_train": nan_at(np.nan)}, "x_train has NaN or infinity, first in image 7"),
    ({"x_train": nan_at(-np.inf)}, "x_train has NaN or infinity, first in image 7"),
    ({"x_train": nan_at(2.0)}, "x_train is float32 with values from 0.0 to 2.0"),
    ({"x_train": X.astype(np.int64) - 300}, "x_train is int64"),
    ({"x_train": X > 100}, "x_train is bool"),
    ({"x_train": X.reshape(40, -1)}, "x_train has shape (40, 192)"),
    ({"x_train": X[..., :2]}, "x_train has shape (40, 8, 8, 2)"),
    ({"x_train": X[:0], "y_train": Y[:0]}, "no train images"),
    ({"x_test": X[:0], "y_test": Y[:0]}, "no test images"),
    ({"x_test": X[:12, :4, :4]}, "test images are (4, 4, 3)"),
    ({"x_test": X[:12, ..., :1]}, "test images are (8, 8, 1)"),
    ({"y_train": Y[:-1]}, "y_train has 39 labels for 40 images"),
    ({"y_train": Y / 1}, "y_train holds float64, not integers"),
    ({"y_train": np.where(Y, "a", "b")}, "y_train holds <U1, not integers"),
    ({"y_train": np.eye(2, dtype=int)[Y]}, "y_train has shape (40, 2)"),
    ({"y_train": Y - 1}, "y_train has the label -1"),
    ({"y_train": Y * 10**12}, "label 1000000000000 in 40 images"),
    ({"y_train": Y * 2}, "no training image of class '1'"),
    ({"y_train": Y * 0}, "one class '0'"),
    ({"y_test": np.arange(12) % 3}, "test labels go up to 2, but the classes are 0 to 1"),
    ({"classes": np.array(["a"])}, "one class 'a'"),
    ({"classes": np.array(["a", "b", "c"])}, "no training image of class 'c'"),
    ({"y_train": None}, "x_train but no train labels"),
    ({"x_test": None}, "y_test but no test images"),
    ({"x_train": None, "y_train": None}, "none for training"),
    ({"x_train": X * 0}, "one and the same value"),
]


@pytest.mark.parametrize("changes, message", BAD_ARRAYS, ids=[message for _, message in BAD_ARRAYS])
def test_npz_contents(npz: Npz, changes: dict[str, np.ndarray | None], message: str) -> None:
    refuse(npz(**changes), message)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("bomb"),)  # type: ignore[return-value]


def test_pickles_are_refused_and_do_not_run(npz: Npz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refuse(npz(extra=np.array([Bomb()], dtype=object)), "data.npz holds pickled objects")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Bomb()))
    refuse(tmp_path / "pickle.npz", "pickle.npz holds pickled objects")
    assert not (tmp_path / "bomb").exists()


def test_npz_that_is_none(npz: Npz, tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(npz().read_bytes()[:3000])
    refuse(tmp_path / "broken.npz", "broken.npz is not a .npz file")
    np.save(tmp_path / "array.npy", X)
    refuse((tmp_path / "array.npy").rename(tmp_path / "array.npz"), "array.npz is not a .npz file")


# ---- parquet


def test_parquet_without_a_train_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test-0.parquet", Y)
    refuse(tmp_path, "none for training")


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"picture": [b"x"], "label": [0]}, "no column 'image', only picture, label"),
        ({"image": [b"x"], "y": [0]}, "no column 'label'"),
        ({"image": ["a.png"], "label": [0]}, "column 'image' is string"),
        ({"image": [{"bytes": None, "path": "a.png"}], "label": [0]}, "column 'image'"),
        ({"image": [png(X[0]), None], "label": [0, 1]}, "'image' has 1 empty rows"),
        ({"image": [png(X[0])] * 2, "label": [0, None]}, "'label' has 1 empty rows"),
        ({"image": [png(X[0])] * 2, "label": ["a", "b"]}, "label holds object, not integers"),
        ({"image": [png(X[0]), b"junk"], "label": [0, 1]}, "image in row 1 is not an image"),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "no rows for train"),
    ],
)
def test_parquet_contents(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")
    refuse(tmp_path / "d.parquet", "d.parquet", message)


def test_parquet_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"PAR1 not really")
    refuse(tmp_path / "d.parquet", "d.parquet is not a parquet file")


# ---- sheets


def rewrite(path: Path, **members: bytes | None) -> Path:
    """A copy of a zip with members replaced, or left out where None."""
    copy = path.with_name("copy.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            if (content := members.get(name, old.read(name))) is not None:
                new.writestr(name, content)
    return copy


@pytest.mark.parametrize(
    "members, message",
    [
        ({"train_labels.npy": None}, "no train_labels.npy"),
        ({"train/0001.webp": None}, "1 sheets in train/ for 150 labels"),
        ({"train/0001.webp": b"junk"}, "train/0001.webp cannot be read"),
        ({"train/0001.webp": png(X[0])}, "train/0001.webp is 8x8, not 10x10 equal tiles"),
        ({"train/0001.webp": png(np.zeros((20, 20, 3), np.uint8))}, "train/0001.webp is of another size"),
        ({"test_labels.npy": b"junk"}, "test_labels.npy is not a plain array"),
        ({"test_labels.npy": pickle.dumps(Bomb())}, "test_labels.npy is not a plain array"),
        ({"meta.json": b"{"}, "cannot be read"),
        ({"meta.json": b'{"classes": ["a"]}'}, "one class 'a'"),
    ],
)
def test_sheet_contents(tmp_path: Path, members: dict[str, bytes | None], message: str) -> None:
    write_sheets(tmp_path / "s.zip", {"train": 150, "test": 100}, ["a", "b"])
    refuse(rewrite(tmp_path / "s.zip", **members), "copy.zip", message)


def test_zip_that_is_none_or_damaged(tmp_path: Path) -> None:
    write_sheets(tmp_path / "s.zip", {"train": 150}, ["a", "b"])
    content = bytearray((tmp_path / "s.zip").read_bytes())
    (tmp_path / "cut.zip").write_bytes(content[:-100])
    refuse(tmp_path / "cut.zip", "cut.zip cannot be read")
    place = re.search(b"RIFF", content)
    assert place
    content[place.start() + 40] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(content)
    refuse(tmp_path / "flipped.zip", "flipped.zip cannot be read")
