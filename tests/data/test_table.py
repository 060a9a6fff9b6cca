"""Tables of samples: what comes back in the order of the images, and every table that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.data import load_dataset
from edgekd.data.table import read_table, write_table
from edgekd.errors import DataError

IDS = np.array([4, 0, 2])


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_values_come_in_the_order_of_the_images(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"table.{suffix}"
    samples = np.array([2, 0, 1, 4, 3])
    write_table(path, samples, {"a": samples.astype(np.float32), "b": (10 * samples).astype(np.float32)})
    columns = read_table(path, IDS)
    assert {name: values.tolist() for name, values in columns.items()} == {"a": [4, 0, 2], "b": [40, 0, 20]}


def test_an_image_from_elsewhere_has_no_value(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    write_table(path, np.arange(5), {"a": np.arange(5, dtype=np.float32)})
    assert np.array_equal(read_table(path, np.array([3, -1]))["a"], [3, np.nan], equal_nan=True)


def test_a_matrix_is_a_column_each(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", sample=np.arange(5), aspect=np.arange(10).reshape(5, 2))
    columns = read_table(tmp_path / "t.npz", IDS)
    assert {name: values.tolist() for name, values in columns.items()} == {"aspect.0": [8, 0, 4], "aspect.1": [9, 1, 5]}


def test_rows_are_those_of_the_file_whatever_is_split_off() -> None:
    data = load_dataset("digits", seed=3)
    ids = np.concatenate([split.ids for split in (data.train, data.val)])
    assert len(np.unique(ids)) == len(ids)
    again = load_dataset("digits", seed=4)
    mine, theirs = (dict(zip(d.train.ids.tolist(), d.train.images, strict=True)) for d in (data, again))
    common = set(mine) & set(theirs)
    assert common and all(np.array_equal(mine[i], theirs[i]) for i in common)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(5)}, "has no column 'sample'"),
        ({"sample": np.arange(4), "a": np.zeros(4)}, "misses 1 of 3 samples, first 4\nMake it for all"),
        ({"sample": np.zeros(0, int), "a": np.zeros(0)}, "misses 3 of 3 samples, first 0"),
        ({"sample": np.array([0, 2, 2, 4]), "a": np.zeros(4)}, "has sample 2 twice"),
        ({"sample": np.arange(5) / 2, "a": np.zeros(5)}, "sample is float64"),
        ({"sample": np.arange(5)}, "has no column but 'sample'"),
        ({"sample": np.arange(5), "a": np.zeros(4)}, "column 'a' is not one number a sample"),
        ({"sample": np.arange(5), "a": np.array(["x"] * 5)}, "column 'a' is not one number a sample"),
        ({"sample": np.arange(5), "a": np.array([1, 1, np.nan, 1, 1])}, "column 'a' has values that are not finite"),
    ],
)
def test_bad_tables_are_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.npz", IDS)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    for name in ("t.npz", "t.parquet"):
        with pytest.raises(DataError, match="does not exist"):
            read_table(tmp_path / name, IDS)
        (tmp_path / name).write_text("no table")
        with pytest.raises(DataError, match=f"{name} is "):
            read_table(tmp_path / name, IDS)
    with pytest.raises(DataError, match="neither .parquet nor .npz"):
        write_table(tmp_path / "t.csv", IDS, {"a": np.zeros(3, np.float32)})
