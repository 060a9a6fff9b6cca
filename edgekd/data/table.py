"""Tables of samples: numbers of every training image, `.parquet` or `.npz`, keyed by the column `sample`.

A sample is the number of an image in the training split as its file has it, before a validation split is taken off:
the row of an .npz or a parquet, the place in the sorted names of a folder. A two-dimensional array [N, Q] of an .npz
is Q columns, NAME.0 and so on.

A list of samples is the column `sample` of such a table, or a text file with one number a line.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.dataset import Labels
from edgekd.errors import DataError

KEY = "sample"

Columns = Mapping[str, NDArray[np.float32]]


def read_table(path: Path, ids: Labels) -> Columns:
    """The columns of the file but `sample`, each float32 [N] in the order of `ids` [N].

    An id of -1 is of an image from elsewhere, and its values are nan. Raises DataError for a file that cannot be read,
    a sample that is missing or there twice, and values that are no finite numbers.
    """
    if not path.is_file():
        raise DataError(f"table {path} does not exist", "`edgekd aspects` makes one; distill.table names it.")
    samples, arrays = _read(path)
    order = samples.argsort(kind="stable")
    ordered = samples[order]
    known = ids >= 0
    place = np.searchsorted(ordered, ids[known]).clip(max=max(0, len(ordered) - 1))
    missing = ids[known] if not len(ordered) else ids[known][ordered[place] != ids[known]]
    if len(missing):
        raise DataError(
            f"table {path} misses {len(missing)} of {known.sum()} samples, first {missing.min()}",
            "Make it for all training images, numbered as their file has them.",
        )
    columns = {}
    for name, values in _split(arrays).items():
        if len(values) != len(samples) or not np.issubdtype(values.dtype, np.number):
            raise DataError(f"table {path}: column {name!r} is not one number a sample", "Remove or repair it.")
        columns[name] = np.full(len(ids), np.nan, np.float32)
        columns[name][known] = values[order][place]
        if not np.isfinite(columns[name][known]).all():
            raise DataError(f"table {path}: column {name!r} has values that are not finite", "Repair them.")
    if not columns:
        raise DataError(f"table {path} has no column but {KEY!r}", "Add columns of numbers.")
    return columns


def read_samples(path: Path, ids: Labels) -> NDArray[np.int64]:
    """The places in `ids` [N] of the samples that the file lists, in its order.

    Raises DataError for a file that cannot be read, a sample that is there twice, and one that is not among `ids`.
    """
    if not path.is_file():
        raise DataError(f"samples {path} do not exist", "Name a file of sample numbers; `edgekd select` writes one.")
    samples = _read(path)[0] if path.suffix in (".npz", ".parquet") else _read_lines(path)
    order = ids.argsort(kind="stable")
    place = np.searchsorted(ids, samples, sorter=order).clip(max=len(ids) - 1)
    rows: NDArray[np.int64] = order[place]
    missing = samples[ids[rows] != samples]
    if len(missing):
        raise DataError(
            f"samples {path}: {missing[0]} is no training image",
            "Number them as their file has them, and use the seed and val_fraction that split it as before.",
        )
    return rows


def write_samples(path: Path, samples: Labels) -> None:
    """Write a list of samples: .npz, .parquet, or one number a line where the name ends in anything else."""
    if path.suffix in (".npz", ".parquet"):
        write_table(path, samples, {})
    else:
        path.write_text("".join(f"{sample}\n" for sample in samples))


def _read(path: Path) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """The samples of a table, each there once, and its other columns."""
    arrays = dict(_read_parquet(path) if path.suffix == ".parquet" else _read_npz(path))
    if KEY not in arrays:
        raise DataError(f"table {path} has no column {KEY!r}", "It holds the number of each image in the training set.")
    samples = arrays.pop(KEY)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.integer):
        raise DataError(f"table {path}: {KEY} is {samples.dtype} of shape {samples.shape}", "Store whole numbers [N].")
    return _once(path, samples.astype(np.int64)), arrays


def _read_lines(path: Path) -> NDArray[np.int64]:
    try:
        samples = np.array([int(line) for line in path.read_text().split()], np.int64)
    except (ValueError, OverflowError) as error:  # of no text, too
        raise DataError(f"samples {path}: {error}", "Write one whole number a line.") from None
    return _once(path, samples)


def _once(path: Path, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    found, counts = np.unique(samples, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"table {path} has sample {found[counts > 1][0]} twice", "Give every sample one row.")
    return samples


def _split(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Columns of one dimension."""
    out: dict[str, NDArray[Any]] = {}
    for name, values in arrays.items():
        if values.ndim == 2:
            out |= {f"{name}.{i}": values[:, i] for i in range(values.shape[1])}
        else:
            out[name] = values
    return out


def write_table(path: Path, samples: Labels, columns: Columns) -> None:
    """Write `columns` [N] of `samples` [N], as `.parquet` or `.npz`. Raises DataError for another name."""
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {KEY: samples, **columns}
        np.savez_compressed(path, **arrays)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({KEY: samples, **columns}), path)
    else:
        raise DataError(f"table {path} is neither .parquet nor .npz", "Name it so.")


def _read_parquet(path: Path) -> Mapping[str, NDArray[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"table {path} is not a parquet file that can be read ({error})", "Make it anew.") from error
    return {name: table[name].to_numpy() for name in table.column_names}


def _read_npz(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"table {path} is neither a .parquet nor a plain .npz ({error})", "Make it anew.") from error
