from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekd.artifacts import LatencyReport
from edgekd.profile.samples import read_samples, write_samples

REPORT = LatencyReport(
    "onnx-int8", "x86-cpu", "onnxruntime-cpu", "int8", 4, tuple(range(1000, 3000)), {"warnings": [], "cov_percent": 1.0}
)


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    moved = replace(REPORT, artifact="engine", phases_ns={"h2d": (1, 2, 3), "d2h": (4, 5, 6)}, accuracy={"value": 0.5})
    file = tmp_path / "new" / "batch-4.npz"
    write_samples(file, [REPORT, moved], "key")
    assert read_samples(file) == ([REPORT, moved], "key")
    first = file.read_bytes()
    write_samples(file, [REPORT, moved], "key")
    assert file.read_bytes() == first and len(first) < 8 * 2000
    with np.load(file) as arrays:  # by anybody, without edgekd
        assert arrays["onnx-int8"].tolist() == list(range(1000, 3000)) and arrays["engine d2h"].tolist() == [4, 5, 6]
