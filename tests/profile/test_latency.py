from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgekd.artifacts import LatencyReport, OnnxModel
from edgekd.config import ProfileConfig
from edgekd.errors import BackendError, TargetError
from edgekd.profile import _client, measure, measure_all, profile
from edgekd.profile._client import WorkerClient
from edgekd.profile.device import Device
from edgekd.profile.machine import usable_cores
from edgekd.progress import NullProgress


def test_a_report_holds_every_sample_and_its_conditions(models: list[OnnxModel], device: Device) -> None:
    report = measure(models[1], device, batch=2, runs=50, warmup=5, threads=1)
    row = report.summary()
    assert len(report.samples_ns) == row["n"] == 50 and min(report.samples_ns) > 1000
    assert (row["artifact"], row["precision"], row["batch"], row["measured"]) == ("onnx-int8", "int8", 2, True)
    assert row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
    conditions = row["conditions"]
    assert conditions["provider"] == "CPUExecutionProvider"
    assert conditions["threads"] == 1 and conditions["warmup"] == 5 and conditions["cpu"]
    assert conditions["versions"]["onnxruntime"] and len(conditions["load_before"]) == 3
    assert len(conditions["cores"]) == 1 and conditions["cores"][0] in usable_cores()
    assert LatencyReport.from_json(json.loads(json.dumps(report.to_json()))).summary() == row


def test_the_median_of_every_turn_is_kept() -> None:
    samples = (3_000_000, 1_000_000, 2_000_000, 8_000_000, 6_000_000, 7_000_000, 5_000_000)
    report = LatencyReport("onnx-int8", "x86-cpu", "onnxruntime-cpu", "int8", 1, samples, {"turns": {"runs": 3}})
    assert report.summary()["turn_p50_ms"] == [2.0, 7.0, 5.0]
    assert replace(report, conditions={}).summary()["turn_p50_ms"] == [5.0]


def test_the_worker_is_another_process_that_really_is_pinned(models: list[OnnxModel], device: Device) -> None:
    with WorkerClient(device, threads=1) as worker:
        pid = worker._process.pid
        assert pid != os.getpid()
        assert sorted(os.sched_getaffinity(pid)) == worker.conditions["cores"]
    assert len(os.sched_getaffinity(0)) == len(usable_cores())


def test_the_worker_imports_neither_torch_nor_onnx() -> None:
    code = "import sys, edgekd.profile.worker; print({'torch', 'onnx', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class Killed(Exception): ...


class DiesAt:
    """Stands in for kill -9: progress that stops the run after `turns` turns."""

    def __init__(self, turns: int) -> None:
        self.left = turns

    @contextmanager
    def task(self, name: str, total: float, done: float = 0) -> Iterator[DiesAt]:
        yield self

    def advance(self, amount: float = 1) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


def test_a_killed_profile_goes_on_from_the_finished_batches(
    tmp_path: Path, models: list[OnnxModel], device: Device
) -> None:
    config = ProfileConfig(runs=200, seconds=0, warmup=3, batches=(1, 4))
    turns = 200 // 20
    with pytest.raises(Killed):
        profile(tmp_path, models=models, device=device, config=config, progress=DiesAt(turns + 2))
    assert not (tmp_path / "latency.json").exists()
    kept = (tmp_path / "samples" / "batch-1.npz").read_bytes()
    assert not (tmp_path / "samples" / "batch-4.npz").exists()

    reports = profile(tmp_path, models=models, device=device, config=config, progress=NullProgress())
    assert (tmp_path / "samples" / "batch-1.npz").read_bytes() == kept
    rows = json.loads((tmp_path / "latency.json").read_text())
    assert rows == [report.summary() for report in reports]
    assert [(row["batch"], row["artifact"], row["n"]) for row in rows] == [
        (batch, name, 200) for batch in (1, 4) for name in ("onnx-fp32", "onnx-int8")
    ]


def test_samples_of_other_options_are_not_taken_for_finished(
    tmp_path: Path, models: list[OnnxModel], device: Device
) -> None:
    for runs in (20, 40):
        (report,) = measure_all(models[:1], device, runs=runs, warmup=1, state=tmp_path)
        assert len(report.samples_ns) == runs


def test_a_graph_the_runtime_refuses_is_one_error(broken: OnnxModel, device: Device) -> None:
    with pytest.raises(BackendError, match="cannot load broken.onnx"):
        measure(broken, device, runs=20, warmup=1)


def test_more_threads_than_cores_is_the_users_error(models: list[OnnxModel], device: Device) -> None:
    with pytest.raises(TargetError, match="profile.threads: 4096"):
        measure(models[0], device, threads=4096)


def test_a_worker_that_dies_is_one_error_with_its_last_words(device: Device) -> None:
    code = "import sys; sys.stdin.readline(); sys.exit('out of luck')"
    with pytest.raises(BackendError, match=r"died during `start` \(exit code 1\): out of luck"):
        WorkerClient(device, 1, command=(sys.executable, "-c", code))


def test_a_worker_that_is_killed_is_one_error(models: list[OnnxModel], device: Device) -> None:
    with WorkerClient(device, 1) as worker:
        worker._process.kill()
        with pytest.raises(BackendError, match=r"died during `time` \(signal 9\)"):
            worker.time("0", 1, 1, 1)


def test_a_worker_that_hangs_is_one_error(device: Device) -> None:
    code = "import time; time.sleep(60)"
    with pytest.raises(BackendError, match="did not answer `start` within 0.2 s"):
        _client.WorkerClient(device, 1, timeout=0.2, command=(sys.executable, "-c", code))
