"""A device over SSH, end to end, on a real OpenSSH server on this machine."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from boards import ORIN_NANO_JP6, write
from sshd import TOOLS, Server, serve

from edgekd.artifacts import OnnxModel
from edgekd.errors import (
    AccessError,
    BackendError,
    ConfigError,
    ConnectionLostError,
    DeviceBusyError,
    DiskFullError,
    EdgekdError,
    HostError,
    HostKeyError,
    ParityError,
    RuntimeMissingError,
    TargetError,
)
from edgekd.profile import measure_all
from edgekd.profile.devices import load_device
from edgekd.profile.hosts import reach, resolve_target
from edgekd.profile.hosts.address import parse
from edgekd.profile.hosts.agent import Agent
from edgekd.profile.hosts.ssh import Ssh
from edgekd.profile.latency import Options, measure_with

needs_sshd = pytest.mark.skipif(not TOOLS, reason="needs OpenSSH's server and client: apt-get install openssh-server")
PROFILE = "x86-cpu" if os.uname().machine == "x86_64" else "arm64-cpu"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.fixture
def clean(server: Server) -> Iterator[Server]:
    """The server; afterwards nothing may be left on the device but the cache."""
    yield server
    assert server.wait_until_clean() == []


def named(server: Server, **options: str) -> str:
    return f"{PROFILE}@{server.url(**{'python': sys.executable, **options})}"


@needs_sshd
def test_a_profile_over_ssh_is_a_profile(clean: Server, models: list[OnnxModel]) -> None:
    device = resolve_target(clean.url(python=sys.executable))
    assert device.name == PROFILE  # the machine was asked
    reports = measure_all(models, device, batches=[1, 2], runs=40, warmup=5)
    assert [(r.artifact, r.batch, len(r.samples_ns)) for r in reports] == [
        ("onnx-fp32", 1, 40),
        ("onnx-int8", 1, 40),
        ("onnx-fp32", 2, 40),
        ("onnx-int8", 2, 40),
    ]
    conditions = reports[0].conditions
    assert conditions["host"] == f"ssh://{clean.url().split('://')[1].split('?')[0]}"
    assert conditions["provider"] == "CPUExecutionProvider" and "simulated" not in conditions
    assert conditions["outputs"]["max_rel_error"] < 1e-5 and conditions["outputs"]["cosine"] > 0.9999
    assert len(conditions["cores"]) == 1 and conditions["versions"]["onnxruntime"] and conditions["cpu"]
    cached = sorted(path.name for path in (clean.root / "cache").glob("*/*.onnx"))
    assert cached == ["student-fp32.onnx", "student-int8.onnx"]


@needs_sshd
def test_a_file_that_is_there_is_not_sent_again_and_a_damaged_one_is(clean: Server, models: list[OnnxModel]) -> None:
    address = parse(named(clean).split("@", 1)[1])
    with Ssh(address) as host, Agent(host, address) as agent:
        agent.start(1, None)
        path = Path(agent.put_model(models[0]))
        first = path.stat().st_mtime_ns
        assert Path(agent.put_model(models[0])) == path and path.stat().st_mtime_ns == first
        path.write_bytes(b"damaged")
        agent.put_model(models[0])
        assert path.read_bytes() == Path(models[0].path).read_bytes()


@needs_sshd
def test_the_numbers_are_those_of_a_local_profile(clean: Server, models: list[OnnxModel]) -> None:
    """Turn by turn beside a local worker: the same graph, the same loop, medians within 5 %."""
    here, there = load_device(PROFILE), resolve_target(named(clean))
    ratios = []
    for _ in range(3):  # a neighbour may sit on one of the cores
        with reach(here) as a, reach(there) as b, a.worker(here, 1) as local, b.worker(there, 1) as remote:
            medians: list[list[float]] = [[], []]
            for worker in (local, remote):
                worker.add("0", models[0], 8)
                worker.time("0", 8, 0, 20)
            for _ in range(20):
                for found, worker in zip(medians, (local, remote), strict=True):
                    found.append(statistics.median(worker.time("0", 8, 20, 2)[0]))
        ratios.append(statistics.median(medians[1]) / statistics.median(medians[0]))
        if abs(ratios[-1] - 1) < 0.05:
            return
    pytest.fail(f"over SSH / local: {ratios}")


@needs_sshd
@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"known": "nobody"}, HostKeyError, "has a host key that is not known here(?s:.*)accept it once, by hand: ssh"),
        ({"known": "changed"}, HostKeyError, "host key"),
        ({"key": "stranger"}, AccessError, "takes none of the keys here(?s:.*)ssh-copy-id"),
        ({"python": "/nowhere/python3"}, RuntimeMissingError, "has no /nowhere/python3(?s:.*)python=PATH"),
    ],
)
def test_what_ssh_refuses(clean: Server, options: dict[str, str], kind: type[EdgekdError], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        resolve_target(clean.url(**options))
    assert caught.value.exit_code == 3 and caught.value.fix
    assert not list(Path("/tmp").glob("edgekd-*/c"))  # no socket of a connection


@needs_sshd
def test_nobody_listens(server: Server) -> None:
    url = server.url().replace(f":{server.port}", ":1")
    with pytest.raises(HostError, match="cannot be reached: .*refused(?s:.*)Try it by hand: ssh -p 1 "):
        resolve_target(url)


@needs_sshd
def test_no_runtime_on_the_device(clean: Server, models: list[OnnxModel]) -> None:
    bare = clean.root / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(RuntimeMissingError, match=r"has no numpy(?s:.*)another interpreter: ssh://...\?python=PATH"):
        measure_all(models, resolve_target(named(clean, python=str(bare))), runs=20)


class Calls:
    """Progress that calls a function when the first turn is over."""

    def __init__(self, call: Any) -> None:
        self.call = call

    @contextmanager
    def task(self, name: str, total: float, done: float = 0) -> Iterator[Calls]:
        yield self

    def advance(self, amount: float = 1) -> None:
        self.call()


@needs_sshd
def test_a_connection_that_is_cut_in_the_middle_of_a_run(clean: Server, models: list[OnnxModel]) -> None:
    with pytest.raises(ConnectionLostError, match="the connection ended during `time`(?s:.*)the same command starts"):
        measure_all(models, resolve_target(named(clean)), runs=200, progress=Calls(clean.drop))


@needs_sshd
def test_a_connection_that_is_cut_while_a_program_runs_there_ends_the_program(clean: Server) -> None:
    address = parse(named(clean).split("@", 1)[1])
    marker = str(clean.root / "cache" / "long")
    with Ssh(address) as host:
        agent = Agent(host, address)
        agent.start(1, None)
        threading.Timer(0.5, clean.drop).start()
        with pytest.raises(ConnectionLostError, match="during `run`"):
            agent.run(["sh", "-c", f"sleep 60; : {marker}"], timeout=60)
        agent.close()
    assert clean.wait_until_clean() == []
    assert subprocess.run(["pgrep", "-f", marker], capture_output=True).stdout == b""


@needs_sshd
def test_a_second_client_is_refused_and_says_who_measures(clean: Server, models: list[OnnxModel]) -> None:
    device = resolve_target(named(clean))

    def second() -> None:
        with pytest.raises(DeviceBusyError, match=r"process \d+ since 20\d\d-.* is measuring there"):
            measure_all(models, device, runs=20)

    measure_all(models[:1], device, runs=20, progress=Calls(second))
    measure_all(models[:1], device, runs=20)  # and then it is free


@needs_sshd
def test_a_full_disk(clean: Server, models: list[OnnxModel]) -> None:
    cache = clean.root / "full"
    cache.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(cache)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    try:
        with pytest.raises(DiskFullError, match=r"student-fp32.onnx has \d+ bytes, and \d+ are free in .*full on the"):
            measure_all(models, resolve_target(named(clean, cache=str(cache))), runs=20)
        assert sorted(path.name for path in cache.rglob("*")) == ["lock"]
    finally:
        subprocess.run(["umount", str(cache)], check=True)


@needs_sshd
def test_a_graph_that_the_runtime_refuses(clean: Server, broken: OnnxModel) -> None:
    with pytest.raises(BackendError, match=r"ssh://.*: ONNX Runtime .* cannot load broken.onnx"):
        measure_all([broken], resolve_target(named(clean)), runs=20)


@needs_sshd
def test_other_outputs_than_here_are_not_timed(
    clean: Server, models: list[OnnxModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = Agent.infer
    monkeypatch.setattr(Agent, "infer", lambda *args: {name: -array for name, array in infer(*args).items()})
    with pytest.raises(ParityError, match=r"student-fp32.onnx does not compute on the device .* cosine of .* -1.0000"):
        measure_all(models, resolve_target(named(clean)), runs=20)


@needs_sshd
def test_more_threads_than_the_device_has(clean: Server, models: list[OnnxModel]) -> None:
    with pytest.raises(TargetError, match="profile.threads: 4096, but only"):
        measure_all(models, resolve_target(named(clean)), runs=20, threads=4096)


@needs_sshd
def test_a_profile_of_another_machine(clean: Server, models: list[OnnxModel]) -> None:
    other = {"x86-cpu": "arm64-cpu", "arm64-cpu": "x86-cpu"}[PROFILE]
    device = resolve_target(named(clean).replace(PROFILE, other))
    with pytest.raises(TargetError, match=f"target {other} is for"):
        measure_all(models, device, runs=20)
    with pytest.raises(TargetError, match="target jetson-orin-nano"):
        measure_all(models, resolve_target(named(clean).replace(PROFILE, "jetson-orin-nano")), runs=20)


def test_ssh_is_told_to_ask_nothing_and_to_trust_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **_: started.append(words) or SimpleNamespace())
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/ssh")
    ssh = Ssh(parse("ssh://jo@board:2222"))
    ssh._directory = "/tmp/edgekd-x"
    ssh.spawn(["python3", "-c", "print('a b')", "$(touch x)"], sys.stderr.buffer)
    (words,) = started
    options = [words[i + 1] for i, word in enumerate(words) if word == "-o"]
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "ControlPath=/tmp/edgekd-x/c"} <= set(options)
    assert words[-3:] == ["--", "board", """python3 -c 'print('"'"'a b'"'"')' '$(touch x)'"""]
    assert words[words.index("-l") + 1] == "jo" and words[words.index("-p") + 1] == "2222"


def test_no_ssh_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(HostError, match="there is no ssh on this machine"):
        Ssh(parse("ssh://board"))


@pytest.mark.parametrize(
    "url", ["ssh://board", "ssh://jo@10.0.0.7:2222", "ssh://[fe80::1]:22", "ssh://jo@board?cache=/mnt/a%20b"]
)
def test_an_address_survives(url: str) -> None:
    assert parse(url).url() == url


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ssh://-oProxyCommand=evil", "no host's name; one cannot begin with a dash"),
        ("ssh://jo@-board", "begin with a dash"),
        ("ssh://-jo@board", "'-jo' is no user's name"),
        ("ssh://", "'' is no host's name"),
        ("ssh://board;reboot", "no host's name"),
        ("ssh://jo:secret@board", "a password has no place in it"),
        ("ssh://board:port", "Port could not be cast"),
        ("ssh://board:99999", "Port out of range"),
        ("ssh://board/etc", "'/etc' means nothing there"),
        ("ssh://board?pyton=x", "unknown option 'pyton'(?s:.*)Did you mean python?"),
        ("ssh://board?config=-Fx", "is no value for it"),
        ("ssh://board?python=", "is no value for it"),
        ("ssh://board?lock_clocks=maybe", "Write yes or no"),
    ],
)
def test_an_address_that_is_none(url: str, text: str) -> None:
    with pytest.raises(TargetError, match=text) as caught:
        parse(url)
    assert caught.value.exit_code == 2


def test_a_target_and_its_place() -> None:
    device = resolve_target(f"{PROFILE}@ssh://jo@board?lock_clocks=yes", set_power_mode="MAXN")
    assert (device.name, device.host) == (PROFILE, "ssh://jo@board?set_power_mode=MAXN&lock_clocks=yes")
    assert resolve_target(PROFILE).host == "local"
    with pytest.raises(TargetError, match="no @ between the name and ssh://"):
        resolve_target(f"{PROFILE}ssh://board")
    with pytest.raises(TargetError, match="are for a device over SSH(?s:.*)--target x86-cpu@ssh://user@host"):
        resolve_target("x86-cpu", set_power_mode="MAXN")


@needs_sshd
def test_the_command_line_takes_a_place_as_target(clean: Server, models: list[OnnxModel], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from edgekd.cli import app

    there = clean.url(python=sys.executable)
    options = ["--runs", "200", "--seconds", "0", "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, ["profile", models[0].path, "--target", there, "--target", PROFILE, *options])
    assert done.exit_code == 0, done.output
    remote, local = json.loads(done.stdout)
    assert remote["conditions"]["host"].startswith("ssh://") and "host" not in local["conditions"]
    assert remote["conditions"]["transfers"] == local["conditions"]["transfers"]
    samples = sorted(path.name for path in (tmp_path / "out/samples").iterdir())
    assert samples == [f"{PROFILE}-batch-1.npz", f"{PROFILE}@127.0.0.1-{clean.port}-batch-1.npz"]
    refused = CliRunner().invoke(app, ["profile", models[0].path, "--target", clean.url(known="nobody")])
    assert refused.exit_code == 3 and "host key that is not known here" in refused.stderr


@needs_sshd
@pytest.mark.simulated
def test_a_simulated_board_over_ssh(clean: Server, tmp_path: Path) -> None:
    root = write(ORIN_NANO_JP6, tmp_path / "board")
    device = resolve_target(clean.url(python=sys.executable, simulated=str(root)))
    assert device.name == "jetson-orin-nano-super"
    with reach(device) as host, host.worker(device, 1) as worker:
        assert worker.conditions["simulated"] and worker.conditions["board"]["power_mode"] == "25W"


@needs_sshd
def test_layers_are_refused_before_anything_is_measured(clean: Server, models: list[OnnxModel]) -> None:
    with pytest.raises(ConfigError, match="--per-layer: over SSH there are no times of layers"):
        measure_with(Options(per_layer=True), models, resolve_target(named(clean)))
    with pytest.raises(TargetError, match="--backend torch-cuda: over SSH there are"):
        measure_all(models, replace(resolve_target(named(clean)), backend="torch-cuda"), runs=20)
