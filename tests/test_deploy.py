"""deploy/: the table is that of the code, paths exist, systemd takes the unit, a server is checked with goldens."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgekd.profile.jetpack import JETPACKS

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
DEVICE = ROOT / "edgekd" / "bundle" / "device"
DOCKERFILES = sorted(DEPLOY.glob("*/Dockerfile"))


def jetpack_table() -> str:
    lines = ["| JetPack | L4T | CUDA | TensorRT | Python | GPUs |", "| --- | --- | --- | --- | --- | --- |"]
    for release in JETPACKS:
        span = release.first if release.first == release.last else f"{release.first} to {release.last}"
        gpus = ", ".join(f"sm_{10 * capability:.0f}" for capability in release.compute_capabilities)
        lines.append(f"| {span} | {release.l4t} | {release.cuda} | {release.tensorrt} | {release.python} | {gpus} |")
    return "\n".join(lines)


def test_the_table_is_the_codes() -> None:
    found = re.search(r"<!-- jetpack -->\n(.*)\n<!-- /jetpack -->", (DEPLOY / "README.md").read_text(), re.DOTALL)
    assert found is not None and found[1] == jetpack_table()


def test_what_the_readme_names_is_there() -> None:
    text = (DEPLOY / "README.md").read_text()
    for name in re.findall(r"^\| `([\w./-]+)` \|", text, re.MULTILINE):
        assert (DEPLOY / name).is_file(), name
    programs = set(re.findall(r"(?:python3|sh) ([\w/]+\.(?:py|sh))", text))
    assert programs and all((DEVICE / name).is_file() for name in programs)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_dockerfiles(file: Path) -> None:
    text = file.read_text()
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (DEPLOY / source).is_file(), source
    commands = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert len(commands) == text.count("\nFROM ") and all(json.loads(command)[0] == "gunicorn" for command in commands)
    variables = set(re.findall(r"EDGEKD_\w+", text))
    assert variables and all(name in (DEVICE / "serve.py").read_text() for name in variables)


def test_both_kinds_of_dockerfile() -> None:
    assert [file.parent.name for file in DOCKERFILES] == ["jetson", "x86"]


def test_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / "edgekd-runner.service").read_text()
    assert "serve:create_app()" in text and "PYTHONDONTWRITEBYTECODE=1" in text
    checker = shutil.which("systemd-analyze")
    if checker is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "gunicorn"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "edgekd-runner.service"
    unit.write_text(text.replace("/opt/edgekd/venv/bin/gunicorn", str(program)))
    done = subprocess.run([checker, "verify", "--man=no", unit], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if unit.name in line]  # of other units it may say something
    assert not said, said


def test_compose_file() -> None:
    service = yaml.safe_load((DEPLOY / "triton" / "compose.yaml").read_text())["services"]["triton"]
    assert "--model-repository=/models" in service["command"] and "/models:/models:ro" in service["volumes"][0]


# --- check_server.py ---------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """As much of a bundle as a client reads: a model that doubles the mean of a pixel."""
    pixels = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2, 1)
    images = pixels.astype(np.float32) * 2 + 1
    outputs = np.stack([images.mean((1, 2, 3)), -images.mean((1, 2, 3))], 1)
    np.savez(
        tmp_path / "goldens.npz",
        pixels=pixels,
        scale=np.float32([2]),
        shift=np.float32([1]),
        **{"m/logits": outputs, "m/logits.atol": np.float64(0.01)},
    )
    model = {"name": "m", "inputs": [{"name": "images", "dtype": "float32"}]}
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"models": [model]}))
    return tmp_path


class Server(BaseHTTPRequestHandler):
    """Answers as the protocol says, with `off` added."""

    off = 0.0

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        (row,) = request["inputs"]
        mean = float(np.mean(row["data"])) + self.off
        good = self.path == "/v2/models/m/infer" and (row["name"], row["datatype"]) == ("images", "FP32")
        good = good and row["shape"] == [1, 1, 2, 2]
        answer = {"outputs": [{"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [mean, -mean]}]}
        body = json.dumps(answer if good else {"error": "no such thing"}).encode()
        self.send_response(200 if good else 400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Server) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def client(*arguments: object) -> Any:
    return subprocess.run(
        [sys.executable, DEPLOY / "check_server.py", *map(str, arguments)], capture_output=True, text=True
    )


def test_a_server_that_is_right(bundle: Path, server: str) -> None:
    done = client(bundle, "m", server)
    assert done.returncode == 0 and "m/logits: at most 0 from 3 goldens, 0.01 allowed" in done.stdout, done.stderr


def test_a_server_that_is_not(bundle: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "off", 0.5)
    done = client(bundle, "m", server)
    assert done.returncode == 3 and "at most 0.5" in done.stdout
    assert "no model 'other': it has m" in client(bundle, "other", server).stderr
    assert "does not answer" in client(bundle, "m", "http://127.0.0.1:1").stderr
    assert "answers 400" in client(bundle, "m", f"{server}/elsewhere").stderr
