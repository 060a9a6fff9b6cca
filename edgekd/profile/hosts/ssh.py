"""The system's own ssh, as its user has set it up: one connection, no questions asked, no unknown host accepted."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from edgekd.errors import AccessError, ConnectionLostError, HostError, HostKeyError, RuntimeMissingError
from edgekd.profile._process import JsonProcess
from edgekd.profile.device import Device
from edgekd.profile.hosts._base import Worker
from edgekd.profile.hosts.address import Address
from edgekd.profile.hosts.remote import RemoteWorker

_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",  # a dead network is noticed after 15 s
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "LogLevel": "ERROR",
}
_NO_CONNECTION = 255  # ssh's own exit code; every other one is the program's there
_NO_PROGRAM = (126, 127)  # of the shell there


class _Master(JsonProcess):
    """Holds the connection that every other ssh goes through. It ends when this process does, however that ends."""

    def __init__(self, ssh: Ssh) -> None:
        self._ssh, self._op = ssh, "connect"
        super().__init__(lambda stderr: ssh.spawn(["cat"], stderr, master=True), timeout=40)
        try:
            self._ask(op="connect")  # `cat` gives it back
        except BaseException:
            self.close()
            raise

    def _death(self, op: str) -> HostError:
        return self._ssh.explain(self._process.wait(), self._said(), op)


class Ssh:
    """A device at `address`. Raises HostError, or the kind of it that fits, when it cannot be reached."""

    def __init__(self, address: Address) -> None:
        self.address, self.where = address, str(address)
        self._master: _Master | None = None
        found = shutil.which("ssh")
        if found is None:
            raise HostError(f"{self.where}: there is no ssh on this machine", "Install OpenSSH's client.")
        self._program = found

    def __enter__(self) -> Ssh:
        # A socket's path has at most 107 bytes, of which ssh takes some more: not below whatever TMPDIR says.
        self._directory = tempfile.mkdtemp(prefix="edgekd-", dir="/tmp" if Path("/tmp").is_dir() else None)
        try:
            self._master = _Master(self)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._master is not None:
            self._master.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def worker(self, device: Device, threads: int) -> Worker:
        return RemoteWorker(self, self.address, device, threads)

    def spawn(self, command: Sequence[str], stderr: IO[bytes], master: bool = False) -> subprocess.Popen[bytes]:
        """Start a program there. The shell there sees every word quoted, and ssh none as an option."""
        options = {**_OPTIONS, "ControlMaster": "yes" if master else "no", "ControlPath": f"{self._directory}/c"}
        address = self.address
        words = [self._program, "-T", *(["-F", address.config] if address.config else [])]
        words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        words += [*(["-l", address.user] if address.user else []), *(["-p", str(address.port)] if address.port else [])]
        words += ["--", address.host, shlex.join(command)]
        pipe = subprocess.PIPE
        # Ctrl-C is for this process, which ends the others in order
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=stderr, start_new_session=True)

    def explain(self, code: int, said: Sequence[str], op: str) -> HostError:
        words = " | ".join(said[-3:]) or "ssh said nothing"
        text = "\n".join(said)
        by_hand = f"ssh {f'-p {self.address.port} ' if self.address.port else ''}{self._login()}"
        if code in _NO_PROGRAM:
            return RuntimeMissingError(
                f"{self.where} has no {self.address.python}: {words}",
                "Install Python 3.6 or newer there, or name an interpreter: ssh://...?python=PATH",
            )
        if code != _NO_CONNECTION:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return ConnectionLostError(
                f"{self.where}: the agent died during `{op}` ({how}): {words}",
                "Signal 9 there is usually a lack of memory: lower profile.batches.",
            )
        if op != "connect":
            return ConnectionLostError(
                f"{self.where}: the connection ended during `{op}`: {words}",
                "Nothing of it is left running there; the same command starts again.",
            )
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in text:
            return HostKeyError(
                f"{self.where} shows another host key than before: {said[-1]}",
                "Find out why before anything else; `ssh-keygen -R HOST` forgets the old one.",
            )
        if "Host key verification failed" in text or "host key is known" in text:
            return HostKeyError(
                f"{self.where} has a host key that is not known here: {words}",
                f"Compare its fingerprint and accept it once, by hand: {by_hand}",
            )
        if "Permission denied" in text:
            return AccessError(
                f"{self.where} takes none of the keys here: {words}",
                f"Bring one there with ssh-copy-id, and unlock it with ssh-add: {by_hand} must ask nothing.",
            )
        return HostError(f"{self.where} cannot be reached: {words}", f"Try it by hand: {by_hand}")

    def _login(self) -> str:
        return f"{self.address.user}@{self.address.host}" if self.address.user else self.address.host
