"""Every sample of a measurement in one small file, so that anybody can count again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import LatencyReport
from edgekd.stage import write_atomic

Arrays = dict[str, NDArray[Any]]


def write_samples(path: Path, reports: Sequence[LatencyReport], key: str = "") -> None:
    """Write `path`, an .npz: nanoseconds as int64 under each artifact's name and, of its phases, "NAME h2d" and so on.

    Its text `record` is JSON: the reports without their samples, and `key`, which says what was measured how.
    """
    arrays: Arrays = {}
    records = []
    for report in reports:
        record = report.to_json()
        record["samples_ns"], record["phases_ns"] = [], {}
        records.append(record)
        arrays[report.artifact] = np.asarray(report.samples_ns, np.int64)
        for phase, samples in report.phases_ns.items():
            arrays[f"{report.artifact} {phase}"] = np.asarray(samples, np.int64)
    buffer = BytesIO()
    record_text = np.array(json.dumps({"key": key, "reports": records}))
    np.savez_compressed(buffer, allow_pickle=False, record=record_text, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def read_samples(path: Path) -> tuple[list[LatencyReport], str]:
    """What `write_samples` has written: the reports and their key."""
    with np.load(path) as file:
        arrays = dict(file)
    record = json.loads(str(arrays.pop("record")))
    reports = []
    for row in record["reports"]:
        name = row["artifact"]
        row["samples_ns"] = arrays[name].tolist()
        phases = (key for key in arrays if key.startswith(f"{name} "))
        row["phases_ns"] = {key.removeprefix(f"{name} "): tuple(arrays[key].tolist()) for key in phases}
        reports.append(LatencyReport.from_json(row))
    return reports, record["key"]
