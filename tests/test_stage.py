"""A stage is whole or absent, cached by its inputs, and goes on where a killed one stopped."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.errors import DiskFullError, RunDirectoryError
from edgekd.stage import RunDirectory, digest_file, fingerprint, write_atomic, write_json


class Work:
    """A stage function that counts its calls, and fails the first `failures` times after writing a bit."""

    def __init__(self, failures: int = 0, error: BaseException | None = None) -> None:
        self.calls, self.failures, self.error = 0, failures, error or ValueError("broken")

    def __call__(self, out: Path) -> None:
        self.calls += 1
        with (out / "log").open("a") as file:
            file.write(f"{self.calls}")
        if self.calls <= self.failures:
            raise self.error


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "run").mkdir()
    return RunDirectory(tmp_path / "run")


def test_fingerprints_ignore_order_and_see_values() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"same")
    assert digest_file(tmp_path / "a") == digest_file(tmp_path / "b") != fingerprint("same")


def test_a_stage_runs_once(run: RunDirectory) -> None:
    work = Work()
    first = run.run("search", {"seed": 0}, work)
    second = run.run("search", {"seed": 0}, work)
    assert work.calls == 1 and not first.cached and second.cached
    assert first.fingerprint == second.fingerprint and second.seconds == first.seconds
    assert sorted(entry.name for entry in run.path.iterdir()) == ["search"]


def test_other_inputs_run_it_again(run: RunDirectory) -> None:
    work = Work()
    run.run("search", {"seed": 0}, work)
    run.run("search", {"seed": 1}, work)
    assert work.calls == 2 and (run.path / "search" / "log").read_text() == "2"
    assert run.cached("search", fingerprint({"stage": "search", "inputs": {"seed": 1}}))
    assert not run.cached("search", fingerprint({"stage": "search", "inputs": {"seed": 0}}))


def test_force_starts_afresh(run: RunDirectory) -> None:
    work = Work()
    run.run("search", {}, work)
    run.run("search", {}, work, force=True)
    assert work.calls == 2 and (run.path / "search" / "log").read_text() == "2"


def test_a_failed_stage_is_absent_and_goes_on(run: RunDirectory) -> None:
    work = Work(failures=1)
    with pytest.raises(ValueError, match="broken"):
        run.run("search", {}, work)
    assert not (run.path / "search").exists() and run.record("search") is None
    run.run("search", {}, work)
    assert (run.path / "search" / "log").read_text() == "12"  # the second call found the first one's work
    assert not list(run.path.glob(".search-*"))


def test_a_failed_redo_keeps_the_old_artifact(run: RunDirectory) -> None:
    run.run("search", {"seed": 0}, Work())
    with pytest.raises(ValueError, match="broken"):
        run.run("search", {"seed": 1}, Work(failures=1))
    assert (run.path / "search" / "log").read_text() == "1"
    assert run.run("search", {"seed": 0}, Work(failures=1)).cached


def test_a_partial_of_other_inputs_is_dropped(run: RunDirectory) -> None:
    with pytest.raises(ValueError, match="broken"):
        run.run("search", {"seed": 0}, Work(failures=1))
    run.run("search", {"seed": 1}, Work())
    assert (run.path / "search" / "log").read_text() == "1" and not list(run.path.glob(".search-*"))


def test_seconds_count_every_attempt(run: RunDirectory) -> None:
    import time

    attempts = []

    def slow(out: Path) -> None:
        attempts.append(out)
        time.sleep(0.05)
        if len(attempts) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run("search", {}, slow)
    assert run.run("search", {}, slow).seconds >= 0.1


def test_killed_in_the_middle(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom edgekd.stage import RunDirectory\n"
        "def fn(out):\n    (out / 'half').write_text('x')\n    os.kill(os.getpid(), 9)\n"
        "with RunDirectory(Path(sys.argv[1])).locked() as run:\n    run.run('search', {}, fn)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "run"])
    assert done.returncode == -9
    with RunDirectory(tmp_path / "run").locked() as run:  # the lock died with it
        assert run.record("search") is None
        seen = []
        run.run("search", {}, lambda out: seen.append((out / "half").read_text()))
    assert seen == ["x"]


def test_no_space_is_one_error(run: RunDirectory) -> None:
    with pytest.raises(DiskFullError, match="(?s)no space left.*same command again"):
        run.run("search", {}, Work(failures=1, error=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(PermissionError):
        run.run("search", {}, Work(failures=1, error=PermissionError(errno.EACCES, "no")))


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run").locked():
        with pytest.raises(RunDirectoryError, match="in use"):
            with RunDirectory(tmp_path / "run").locked():
                pass
    with RunDirectory(tmp_path / "run").locked():
        pass


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunDirectoryError, match="not empty"):
        with RunDirectory(tmp_path).locked():
            pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunDirectoryError, match="is a file"):
        with RunDirectory(tmp_path / "thesis.tex").locked():
            pass


def test_writes_are_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("power cut")))
    with pytest.raises(OSError, match="power cut"):
        write_atomic(file, b"half")
    assert json.loads(file.read_text()) == {"a": 1}


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())
