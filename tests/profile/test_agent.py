"""The program that runs on the device, apart from ssh."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekd.errors import BackendError, HostError
from edgekd.profile.agent import agent as program
from edgekd.profile.hosts.address import Address
from edgekd.profile.hosts.agent import _BOOT, Agent
from edgekd.profile.worker import quiet_cores

SOURCE = Path(str(program.__file__))


class Here:
    """This machine, without ssh."""

    where = "here"

    def spawn(self, command: list[str], stderr: object) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr)  # type: ignore[call-overload]
        return self.process  # type: ignore[no-any-return]

    def explain(self, code: int, said: list[str], op: str) -> HostError:
        return HostError(f"{op}: exit code {code}: {said}", "Read it.")


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return Address("here", python=sys.executable, cache=str(tmp_path / "cache"))


def test_it_is_python_3_6_with_its_standard_library() -> None:
    text = SOURCE.read_text(encoding="ascii")  # the locale there may know nothing else
    tree = ast.parse(text, feature_version=(3, 6))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}
    since_3_7 = {"capture_output", "text", "perf_counter_ns", "monotonic_ns", "removeprefix", "missing_ok"}
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {str(node.arg) for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert not names & since_3_7


def test_it_ends_by_itself_when_nobody_asks(tmp_path: Path) -> None:
    source = SOURCE.read_bytes().replace(b"IDLE_S = 900", b"IDLE_S = 0.2")
    with subprocess.Popen(
        [sys.executable, "-u", "-c", _BOOT, str(tmp_path / "cache"), ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"%d\n%s" % (len(source), source))
        process.stdin.flush()
        assert process.wait(20) == -9


def test_what_a_killed_one_left_is_removed(address: Address) -> None:
    here = Here()
    first = Agent(here, address)
    first.start(1, None)
    here.process.kill()
    with pytest.raises(HostError, match="exit code -9"):
        first.now()
    first.close()
    cache = Path(address.cache)
    assert len(list(cache.glob("tmp-*"))) == 1
    with Agent(Here(), address) as second:
        started = second.start(1, None)
        assert [str(path) for path in cache.glob("tmp-*")] == [started["scratch"]]
    assert [path.name for path in cache.iterdir()] == ["lock"]


def test_programs_end_with_it_and_settings_are_put_back(address: Address, tmp_path: Path) -> None:
    late, marker = tmp_path / "late", tmp_path / "undone"
    with Agent(Here(), address) as agent:
        agent.start(1, None)
        agent.undo(["touch", str(marker)])
        assert agent.watch(["sh", "-c", f"(sleep 1; touch {late}) & while :; do echo line; sleep 0.05; done"])
        time.sleep(0.3)
        assert not marker.exists()
    assert marker.exists()
    time.sleep(1.2)
    assert not late.exists()


def test_a_program_that_takes_too_long_and_one_that_is_not_there(address: Address) -> None:
    with Agent(Here(), address) as agent:
        code, lines = agent.run(["sh", "-c", "echo a; echo b >&2; exit 3"])
        assert code == 3 and [line for _, line in lines] == ["a", "b"]
        assert agent.run(["no-such-program"]) == (None, [])
        assert agent.watch(["no-such-program"]) is False and agent.watched() == []
        with pytest.raises(BackendError, match="sleep was not done after 0 s"):
            agent.run(["sleep", "30"], timeout=0.1)
        assert agent.run(["true"])[0] == 0  # and goes on


def test_a_name_does_not_leave_the_cache(address: Address) -> None:
    with Agent(Here(), address) as agent:
        agent.start(1, None)
        for key, name in (("..", "x"), ("a/b", "x"), ("a", "../x"), ("a", ".ssh")):
            with pytest.raises(BackendError, match="is no plain name"):
                agent.find(key, name)


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path) -> None:
    agent = program.Agent(str(tmp_path), "")

    def full(payload: bytes) -> None:
        raise OSError(28, "No space left on device")

    agent._upload = (SimpleNamespace(write=full), "x", 1, "")
    reply = program.answer(agent, {"op": "write", "payload": b"x"})
    assert reply["kind"] == "disk" and "no space left in" in reply["error"][0]


def test_it_takes_the_cores_that_the_local_worker_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([{0: 100, 1: 100, 2: 100}, {0: 101, 1: 109, 2: 105}] * 2)
    for name in ("edgekd.profile.worker._idle_ticks", "edgekd.profile.agent.agent.idle_ticks"):
        monkeypatch.setattr(name, lambda: next(ticks))
    monkeypatch.setattr("edgekd.profile.worker.usable_cores", lambda: [0, 1, 2])
    assert quiet_cores(2, 0) == program.quiet_cores([0, 1, 2], 2, 0) == [1, 2]
