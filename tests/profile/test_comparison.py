from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.errors import ConfigError
from edgekd.profile.comparison import compare, counterpart, read_base

CONDITIONS = {"cpu": "Quick", "threads": 1, "versions": {"onnxruntime": "1.31"}}


def row(p50: float, noise: float = 0.02, turns: int = 40, seed: int = 0, **fields: Any) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    medians = (p50 * (1 + noise * random.standard_normal(turns))).tolist()
    own = {"artifact": "onnx-int8", "target": "x86-cpu", "batch": 1, "precision": "int8", "measured": True}
    return {**own, "p50_ms": float(np.median(medians)), "turn_p50_ms": medians, "conditions": CONDITIONS, **fields}


def test_a_true_difference_is_significant_and_noise_is_not() -> None:
    slower = compare(row(1.2, seed=1), row(1.0, seed=2))
    assert slower["significant"] and slower["ci95"][0] < 1.2 < slower["ci95"][1] and "slower (time +" in slower["says"]
    faster = compare(row(0.8, seed=3), row(1.0, seed=4))
    assert faster["significant"] and faster["ratio"] < 1 and "faster" in faster["says"]
    assert compare(row(1.2, seed=1), row(1.0, seed=2)) == slower  # the same draws again


def test_the_interval_holds_what_it_promises() -> None:
    intervals = [compare(row(1.0, seed=2 * i), row(1.0, seed=2 * i + 1))["ci95"] for i in range(60)]
    wrong = [not low <= 1 <= high for low, high in intervals]
    assert sum(wrong) <= 9  # 5 % of 60 are 3; ten or more come by chance once in 2000 times
    assert "no difference beyond noise" in compare(row(1.0, seed=0), row(1.0, seed=1))["says"]


def test_what_two_runs_of_one_file_may_differ_by_is_no_difference() -> None:
    found = compare(row(1.01, noise=0.001, seed=1), row(1.0, noise=0.001, seed=2))
    assert found["ci95"][0] > 1 and not found["significant"]
    assert "no more than two runs of one file may differ by" in found["says"]


def test_a_busy_machine_is_said() -> None:
    busy = {**CONDITIONS, "warnings": ["the machine was busy before: other processes used 2.0 of 2 cores"]}
    found = compare(row(1.2, seed=1), row(1.0, seed=2, conditions=busy))
    assert found["disturbed"] and found["says"].endswith("the machine was busy for one of them")
    assert not compare(row(1.2), row(1.0))["disturbed"]


def test_too_few_turns_say_nothing_of_how_sure_it_is() -> None:
    found = compare(row(2.0, turns=5), row(1.0))
    assert found["ci95"] is None and not found["significant"] and "too few turns" in found["says"]


def test_what_else_has_changed_is_listed() -> None:
    base = row(1.0, conditions={**CONDITIONS, "threads": 2, "load": 1}, precision="fp32")
    assert compare(row(1.0), base)["differs"] == {"threads": [2, 1], "precision": ["fp32", "int8"]}


def test_rows_are_found_by_target_batch_and_artifact() -> None:
    fp32, int8, large = row(2, artifact="onnx-fp32"), row(1), row(9, batch=32)
    assert counterpart(row(1), [fp32, int8, large]) is int8
    assert counterpart(row(1, artifact="new.onnx"), [fp32, int8, large]) is None  # two could be meant
    assert counterpart(row(1, artifact="new.onnx", batch=32), [fp32, int8, large]) is large
    assert counterpart(row(1, target="rtx-4090"), [int8]) is None


def test_a_base_may_be_a_report_or_a_list_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "base.json"
    for record in ([row(1)], {"latency": [row(1), row(2, measured=False)], "schema": 1}):
        file.write_text(json.dumps(record))
        assert [found["p50_ms"] for found in read_base(file)] == [row(1)["p50_ms"]]
    for text, said in (("[", "not JSON"), ("[]", "no rows"), ('{"latency": [{}]}', "no rows")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_base(file)
    file.write_text(json.dumps([row(1, measured=False)]))
    with pytest.raises(ConfigError, match="estimates alone"):
        read_base(file)
    with pytest.raises(ConfigError, match=r"--compare .*none.json cannot be read: No such file"):
        read_base(tmp_path / "none.json")
