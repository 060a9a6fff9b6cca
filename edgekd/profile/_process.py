"""A process that answers requests: JSON lines on its standard input, one JSON line a reply."""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, TypeVar

from edgekd.errors import BackendError, EdgekdError

T = TypeVar("T", bound="JsonProcess")


class JsonProcess:
    """`spawn` starts the process, with pipes, on the file it is given for standard error.

    `_ask` raises BackendError for a reply that is an error, a death, and an answer that takes more than `timeout`
    seconds; what exactly, a subclass says.
    """

    slow = "Look for what else keeps the machine busy."

    def __init__(self, spawn: Callable[[IO[bytes]], subprocess.Popen[bytes]], timeout: float) -> None:
        self.timeout = timeout
        self._stderr: IO[bytes] = tempfile.TemporaryFile()
        self._process = spawn(self._stderr)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def close(self) -> None:
        """End the process; harmless when it has ended."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            try:
                stream.close()  # type: ignore[union-attr]
            except (BrokenPipeError, ValueError):
                pass  # what was still buffered had no reader any more

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            for line in stdout:
                self._lines.put(line)
        except ValueError:
            pass  # closed while reading: close() was called
        self._lines.put(b"")  # end of file

    def _ask(self, payload: bytes = b"", timeout: float | None = None, **request: Any) -> dict[str, Any]:
        """The reply to a request, after which `payload` is sent where there is one."""
        if payload:
            request["payload"] = len(payload)
        stdin = self._process.stdin
        assert stdin is not None
        patience = self.timeout if timeout is None else timeout
        try:
            stdin.write(json.dumps(request).encode() + b"\n" + payload)
            stdin.flush()
            line = self._lines.get(timeout=patience)
        except (BrokenPipeError, ValueError):
            line = b""
        except queue.Empty:
            self._process.kill()
            raise BackendError(
                f"the measuring process did not answer `{request['op']}` within {patience:g} s", self.slow
            ) from None
        if not line:
            raise self._death(request["op"])
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise self._error(reply)
        return reply

    def _error(self, reply: dict[str, Any]) -> EdgekdError:
        return BackendError(*reply["error"])

    def _said(self) -> list[str]:
        """The lines of its standard error."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip().splitlines()

    def _death(self, op: str) -> EdgekdError:
        code = self._process.wait()
        said = " | ".join(self._said()[-3:]) or "it said nothing"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return BackendError(
            f"the measuring process died during `{op}` ({how}): {said}",
            "`edgekd doctor` checks the runtime; signal 9 is usually a lack of memory: lower profile.batches.",
        )
