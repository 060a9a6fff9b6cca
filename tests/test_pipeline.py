"""The whole chain on digits, small: cached the second time, redone only where the config reaches, resumed anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgekd.config import RunConfig, load_config
from edgekd.data import load_dataset
from edgekd.errors import ConfigError, InputError, RunDirectoryError, TargetError
from edgekd.pipeline import compress, plan, run_config, run_stage, status
from edgekd.pipeline.dependencies import depends_on, files_of_distill
from edgekd.pipeline.inputs import Inputs
from edgekd.progress import NullProgress, Task

SETTINGS = {
    "data": "digits",
    "target": "x86-cpu",
    "teacher.name": "resnet8",
    "teacher.train.epochs": 3,
    "search.evaluations": 8,
    "search.population": 4,
    "search.inits": 1,
    "search.batch_size": 16,
    "search.finalists": 1,
    "search.max_params": 20_000,
    "distill.epochs": 3,
    "distill.views": 2,
    "distill.checkpoint_seconds": 0.01,
    "quantize.calibration": 64,
    "quantize.qad.epochs": 0.5,
    "profile.batches": (1, 4),
    "profile.seconds": 0,
}
STAGES = ["teacher", "search", "distill", "quantize", "export", "profile"]


def config(**changes: object) -> RunConfig:
    flags = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    return load_config(assignments=["quantize.qad.tolerance=null"], flags=flags)  # QAD runs whatever PTQ loses


class StopAt(NullProgress):
    """Raises in the middle of the first task whose name holds `name`."""

    def __init__(self, name: str) -> None:
        self.name, self.left = name, -1.0

    @contextmanager
    def task(self, name: str, total: float, done: float = 0) -> Iterator[Task]:
        if self.name in name and self.left < 0:
            self.left = max(1.0, total // 2)
            yield self
        else:
            with super().task(name, total, done) as task:
                yield task

    def advance(self, amount: float = 1) -> None:
        self.left -= amount
        if self.left <= 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "RUN"
    compress(config(), out)
    return out


def test_report_has_the_contract(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert set(report["teacher"]) >= {"name", "top1", "params", "macs"}
    assert set(report["search"]) >= {"space", "scorer", "scored", "seconds", "chosen", "ranking"}
    assert set(report["search"]["chosen"]) >= {"spec", "params", "macs", "latency_ms"}
    assert [stage["name"] for stage in report["stages"]] == STAGES
    rows = {row["artifact"]: row for row in report["ledger"]}
    assert rows.keys() >= {"teacher", "student-fp32", "student-ptq", "student-qad", "onnx-fp32", "onnx-int8"}
    for row in rows.values():
        assert 0 <= row["value"] <= 1 and row["n"] == 359 and row["size_bytes"] > 0 and row["runtime"]
    assert rows["teacher"]["agreement_with_teacher"] == 1
    pairs = {(row["artifact"], row["batch"]) for row in report["latency"]}
    assert pairs == {(name, batch) for name in ("teacher", "onnx-fp32", "onnx-int8") for batch in (1, 4)}
    assert all(row["measured"] and row["n"] >= 200 and row["conditions"] for row in report["latency"])
    assert report["search"]["chosen"]["params"] <= 20_000


def test_ledger_is_what_the_shipped_file_computes(finished: Path) -> None:
    """Recomputed here with ONNX Runtime alone."""
    data = load_dataset("digits")
    spec = json.loads((finished / "distill" / "checkpoint.json").read_text())["spec"]
    mean, std = np.array(spec["mean"], np.float32), np.array(spec["std"], np.float32)
    images = ((data.test.images / np.float32(255) - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(
        finished / "export" / "student-int8.onnx", providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {"images": images})
    report = json.loads((finished / "report.json").read_text())
    (row,) = [row for row in report["ledger"] if row["artifact"] == "onnx-int8"]
    assert row["value"] == pytest.approx((logits.argmax(1) == data.test.labels).mean(), abs=1.5 / 359)
    assert (finished / row["path"]).is_file()


def test_again_does_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/*") if path.is_file()}
    assert all(stage.cached for stage in plan(config(), finished))
    report = compress(config(), finished)
    assert all(stage["cached"] for stage in report["stages"])
    assert before == {path: path.stat().st_mtime_ns for path in finished.glob("*/*") if path.is_file()}
    assert {row["state"] for row in status(finished)} == {"done"}
    assert run_config(finished) == config()


def test_force_redoes_one_stage(finished: Path) -> None:
    weights = (finished / "quantize" / "model.safetensors").stat().st_mtime_ns
    report = run_stage("profile", finished, force=True)
    assert [stage["name"] for stage in report["stages"] if not stage["cached"]] == ["profile"]
    assert (finished / "quantize" / "model.safetensors").stat().st_mtime_ns == weights


def test_a_change_reaches_the_stages_behind_it(finished: Path) -> None:
    planned = plan(config(quantize__calibration=65), finished)
    assert [stage.cached for stage in planned] == [True, True, True, False, False, False]
    assert [stage.cached for stage in plan(config(profile__runs=201), finished)] == [True] * 5 + [False]
    assert all(stage.estimate_s for stage in planned if not stage.cached)


@pytest.mark.parametrize("where", ["teacher (", "search", "distill", "QAD", "ledger", "profile"])
def test_a_stopped_run_ends_as_an_unbroken_one(finished: Path, tmp_path: Path, where: str) -> None:
    out = tmp_path / "RUN"
    with pytest.raises(KeyboardInterrupt):
        compress(config(), out, progress=StopAt(where))
    assert list(out.glob(".*.partial"))
    compress(config(), out)
    for name in ("distill", "quantize"):
        file = Path(name) / "model.safetensors"
        assert (out / file).read_bytes() == (finished / file).read_bytes()
    int8 = Path("export") / "student-int8.onnx"
    assert (out / int8).read_bytes() == (finished / int8).read_bytes()
    assert not list(out.glob(".*.partial"))


def test_until_and_from(tmp_path: Path) -> None:
    out = tmp_path / "RUN"
    report = compress(config(), out, until="search")
    assert [stage["name"] for stage in report["stages"]] == ["teacher", "search"] and report["ledger"] == []
    with pytest.raises(RunDirectoryError, match="no distill yet"):
        compress(config(), out, start="quantize")
    with pytest.raises(ConfigError, match="no stage 'dstill'"):
        compress(config(), out, until="dstill")
    with pytest.raises(ConfigError, match="comes after"):
        compress(config(), out, start="export", until="search")


def test_report_keeps_the_stages_around_the_one_that_ran(finished: Path) -> None:
    for options in ({"until": "distill"}, {"start": "profile"}):
        report = compress(config(), finished, **options)
        assert [stage["name"] for stage in report["stages"]] == STAGES
        assert report["ledger"] and report["latency"]


def test_impossible_latency_leaves_nothing(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="latency"):
        compress(config(latency="0.1us"), tmp_path / "RUN", until="search")
    assert [path.name for path in (tmp_path / "RUN").glob(".*.partial")] == []


def test_files_that_distill_reads_count_by_their_content(tmp_path: Path) -> None:
    table = tmp_path / "t.npz"

    def fingerprint(**changes: object) -> object:
        return files_of_distill(Inputs(config(**changes), tmp_path / "run"))

    assert fingerprint() == {"unlabelled": None, "table": None, "labels": None}
    np.savez(table, sample=np.arange(3), a=np.zeros(3))
    before = fingerprint(distill__table=str(table))
    np.savez(table, sample=np.arange(3), a=np.ones(3))
    assert fingerprint(distill__table=str(table)) != before
    assert fingerprint(distill__unlabelled="digits") != fingerprint()


def test_a_calibrated_search_knows_a_method_by_the_content_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.pipeline.dependencies._first_teacher", lambda inputs: "the same")
    method = tmp_path / "my.py"

    def found(content: str) -> object:
        method.write_text(content)
        return depends_on(
            Inputs(config(distill__method=f"{method}:My", search__calibrate=8), tmp_path / "run"), "search"
        )

    assert found("ONE = 1") == found("ONE = 1")
    assert found("ONE = 1") != found("ONE = 2")
    here = depends_on(Inputs(config(search__calibrate=8), tmp_path / "run"), "search")
    assert here == depends_on(Inputs(config(search__calibrate=8, distill__store="s"), tmp_path / "run"), "search")


def test_a_missing_stream_or_table_is_found_before_anything_is_written(tmp_path: Path) -> None:
    for changes, message in (
        ({"distill__method": "dho"}, "distill.unlabelled: dho needs a stream"),
        ({"distill__method": "makd"}, "distill.table: makd needs a table"),
        ({"distill__method": "makd", "distill__table": "gone.npz"}, "table gone.npz does not exist"),
        ({"distill__unlabelled": "digits"}, "distill.unlabelled: kd makes no use"),
    ):
        with pytest.raises(InputError, match=message):
            compress(config(**changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()
