"""A real OpenSSH server on this machine, as the device: its own port, keys and settings, gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

PROGRAM = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
TOOLS = PROGRAM is not None and shutil.which("ssh") is not None and shutil.which("ssh-keygen") is not None


@dataclass
class Server:
    root: Path
    port: int
    process: subprocess.Popen[bytes]

    def url(self, known: str = "known", key: str = "key", **options: str) -> str:
        """Of the server, by a configuration of ssh's that knows the hosts of `known` and takes `key`."""
        config = self.root / f"ssh-{known}-{key}"
        config.write_text(
            f"Host *\n  IdentityFile {self.root / key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.root / known}\n  GlobalKnownHostsFile /dev/null\n"
        )
        words = {"config": str(config), "cache": str(self.root / "cache"), **options}
        query = "&".join(f"{name}={value}" for name, value in words.items())
        return f"ssh://{getuser()}@127.0.0.1:{self.port}?{query}"

    def drop(self) -> None:
        """Cut every connection, as a network that is gone does."""
        for pid in _children(self.process.pid):
            os.kill(pid, signal.SIGKILL)

    def left(self) -> list[str]:
        """What a measurement left on the device: agents with its cache, and files that are no cache."""
        cache = self.root / "cache"
        found = [
            f"process {entry.name}"
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and str(cache) in _command(int(entry.name)).split("\0")
        ]
        # `os.walk`, because the agent may remove a folder while it is read
        paths = (Path(folder, name) for folder, inside, names in os.walk(cache) for name in [*inside, *names])
        files = [path for path in paths if path.is_file() or "tmp-" in path.name]
        return found + [str(file) for file in files if file.name != "lock" and len(file.parent.name) != 64]

    def wait_until_clean(self, seconds: float = 10) -> list[str]:
        until = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < until:
            time.sleep(0.05)
        return left


@contextmanager
def serve(root: Path) -> Iterator[Server]:
    """Start it and wait for its port."""
    for name in ("host", "key", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)], check=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    (root / "authorized").write_text((root / "key.pub").read_text())
    host = " ".join((root / "host.pub").read_text().split()[:2])
    other = " ".join((root / "stranger.pub").read_text().split()[:2])
    (root / "known").write_text(f"[127.0.0.1]:{port} {host}\n")
    (root / "changed").write_text(f"[127.0.0.1]:{port} {other}\n")
    (root / "nobody").write_text("")
    (root / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {root}/host\nAuthorizedKeysFile {root}/authorized\n"
        "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it confines the part without rights
    with (root / "sshd.log").open("wb") as log:
        process = subprocess.Popen([str(PROGRAM), "-D", "-e", "-f", str(root / "sshd_config")], stderr=log)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise RuntimeError((root / "sshd.log").read_text())
            time.sleep(0.05)
        yield Server(root, port, process)
    finally:
        process.terminate()
        process.wait()


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
