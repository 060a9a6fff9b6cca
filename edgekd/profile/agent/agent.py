"""The program that measures on another machine, where it is not stored: Python 3.6, numpy and ONNX Runtime.

Its source comes over standard input, then requests: a line of JSON each, and after it as many bytes as its `payload`
says. A reply is a line of JSON; an error is one too: {"error": [what, fix], "kind": ...}. It ends when standard input
does, and with it every program that it started; what stays is the cache directory.

Arguments: the cache directory, and for a simulated board the directory that stands for its root.
"""

import base64
import errno
import fcntl
import glob
import hashlib
import json
import os
import platform
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

IDLE_S = 900  # without a request for so long, whoever asked is gone: a dead network does not close a connection
READABLE = 1 << 20  # bytes of a file that is read for its text
BUG = "This is a bug in edgekd: please report it."

clock_ns = getattr(time, "perf_counter_ns", None) or (lambda: int(1e9 * time.perf_counter()))  # 3.6 has no _ns

Lines = List[Tuple[float, str]]  # when it was read, in s of time.monotonic, and what


class Failed(Exception):
    """`kind` is what the other side makes of it: busy, disk, runtime, threads or failed."""

    def __init__(self, kind: str, what: str, fix: str) -> None:
        super().__init__(what)
        self.kind, self.what, self.fix = kind, what, fix


class Program:
    """A running program; `lines` is what it has said so far, on both of its outputs."""

    def __init__(self, command: List[str], environment: Dict[str, str], directory: Optional[str]) -> None:
        self.lines = []  # type: Lines
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=directory,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, timeout: float) -> Optional[int]:
        """Its exit code; None where it is still running after `timeout` seconds."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(5)
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(0.5)  # a child of its own may keep the pipe, until this process ends

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append((time.monotonic(), line.decode("utf-8", "replace").rstrip("\r\n")))


class Agent:
    def __init__(self, cache: str, root: str) -> None:
        self.cache = os.path.abspath(os.path.expanduser(cache or "~/.cache/edgekd"))
        self.root = root  # of a simulated board, else empty
        self.scratch = ""
        self.sessions = {}  # type: Dict[str, Any]
        self.feeds = {}  # type: Dict[Tuple[str, int], Dict[str, Any]]
        self._lock = None  # type: Any
        self._upload = None  # type: Any
        self._programs = []  # type: List[Program]
        self._watched = None  # type: Optional[Program]
        self._undo = []  # type: List[List[str]]
        self._ending = threading.Lock()

    # what the machine is: nothing of it writes

    def machine(self) -> Dict[str, Any]:
        folder = self.cache
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        return {
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "cores": len(os.sched_getaffinity(0)),
            "at": time.monotonic(),
            "load": list(os.getloadavg()),
            "disk_free_bytes": shutil.disk_usage(folder).free,
            "simulated": bool(self.root),
        }

    def read(self, patterns: List[str]) -> Dict[str, Any]:
        """The text of every file that fits; a directory of the kernel's may have some that cannot be read."""
        texts = {}
        for pattern in patterns:
            for path in sorted(glob.glob(self.root + pattern)):
                try:
                    with open(path, "rb") as file:
                        text = file.read(READABLE).decode("utf-8", "replace")
                except OSError:
                    continue
                texts[path[len(self.root) :]] = text.replace("\0", "")
        return {"texts": texts}

    def run(self, command: List[str], seconds: float) -> Dict[str, Any]:
        """A program's exit code and lines; the code is None where there is no such program."""
        found = self._find(command[0])
        if found is None:
            return {"code": None, "lines": []}
        program = self._start([found] + command[1:])
        code = program.wait(seconds)
        if code is None:
            program.kill()
        self._programs.remove(program)
        if code is None:
            said = program.lines[-1][1] if program.lines else "nothing"
            text = "{} was not done after {:.0f} s; its last words: {}"
            raise Failed("failed", text.format(command[0], seconds, said), "Look for what keeps the device busy.")
        return {"code": code, "lines": program.lines}

    def watch(self, command: List[str]) -> Dict[str, Any]:
        """Let a program run beside what is measured, until `watched`."""
        found = self._find(command[0])
        if found is not None:
            self._watched = self._start([found] + command[1:])
        return {"there": found is not None}

    def watched(self) -> Dict[str, Any]:
        program, self._watched = self._watched, None
        if program is None:
            return {"lines": []}
        program.kill()
        self._programs.remove(program)
        return {"lines": program.lines}

    def _find(self, name: str) -> Optional[str]:
        if not self.root:
            return shutil.which(name)
        return shutil.which(self.root + name if name.startswith("/") else os.path.join(self.root, "bin", name))

    def _start(self, command: List[str]) -> Program:
        environment = dict(os.environ)
        if self.scratch:
            environment["TMPDIR"] = self.scratch
        program = Program(command, environment, self.scratch or None)
        self._programs.append(program)
        return program

    # measuring

    def start(self, threads: int, runtime: Optional[str]) -> Dict[str, Any]:
        """Be the only one here, pin this process, load the runtime: in this order."""
        available = sorted(os.sched_getaffinity(0))
        if threads > len(available):
            text = "profile.threads: {}, but only {} cores are usable on the device"
            raise Failed("threads", text.format(threads, len(available)), "Set profile.threads lower.")
        self._occupy()
        cores = quiet_cores(available, threads)
        os.sched_setaffinity(0, cores)
        versions = {"python": platform.python_version()}
        for name in ("numpy", runtime) if runtime else ():
            try:
                versions[name] = __import__(name).__version__
            except ImportError as error:
                text = "{} (Python {}) has no {}: {}"
                what = text.format(sys.executable, platform.python_version(), name, error)
                raise Failed(
                    "runtime", what, "Install it there, or name another interpreter: ssh://...?python=PATH"
                ) from None
        return {
            "threads": threads,
            "cores": cores,
            "versions": versions,
            "cache": self.cache,
            "scratch": self.scratch,
            "clock": "perf_counter, host to host",
        }

    def _occupy(self) -> None:
        """Take the lock, which ends with this process however it ends, and remove what a killed one left."""
        os.makedirs(self.cache, mode=0o700, exist_ok=True)
        lock = open(os.path.join(self.cache, "lock"), "a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "somebody else"
            raise Failed("busy", f"{holder} is measuring there", "Try again when that has ended.") from None
        lock.truncate(0)
        lock.write("process {} since {}".format(os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S %Z")))
        lock.flush()
        self._lock = lock
        for left in glob.glob(os.path.join(self.cache, "tmp-*")):
            shutil.rmtree(left, ignore_errors=True)
        self.scratch = tempfile.mkdtemp(prefix="tmp-", dir=self.cache)

    def put(self, name: str, size: int, sha256: str, key: Optional[str] = None) -> Dict[str, Any]:
        """Announce a file, for the cache under `key` or for as long as this process lasts; `write` brings it."""
        path = self._place(name, key)
        if os.path.isfile(path) and digest(path) == sha256:
            return {"path": path, "have": True}
        free = shutil.disk_usage(self.cache).free
        if size > free:
            text = "{} has {} bytes, and {} are free in {} on the device"
            raise Failed("disk", text.format(name, size, free, self.cache), "Free some space there, or set ?cache=DIR.")
        self._upload = (open(os.path.join(self.scratch, "upload"), "wb"), path, size, sha256)
        return {"path": path, "have": False}

    def write(self, payload: bytes) -> Dict[str, Any]:
        """The next part of the announced file; the last one moves it to its place."""
        file, path, size, sha256 = self._upload
        file.write(payload)
        if file.tell() == size:
            file.close()
            if digest(file.name) != sha256:
                raise Failed("failed", f"{os.path.basename(path)} did not arrive as it was sent", "Try again.")
            self._move(file.name, path)
        return {}

    def find(self, key: str, name: str) -> Dict[str, Any]:
        path = self._place(name, key)
        return {"path": path if os.path.isfile(path) else None}

    def keep(self, source: str, key: str, name: str) -> Dict[str, Any]:
        """Move a file from the scratch directory into the cache, whole or not at all."""
        path = self._place(name, key)
        self._move(self._place(source, None), path)
        return {"path": path}

    def result(self, name: str) -> Dict[str, Any]:
        """What a program has written into the scratch directory."""
        with open(self._place(name, None), encoding="utf-8") as file:
            return {"text": file.read()}

    def _place(self, name: str, key: Optional[str]) -> str:
        for part in (name, key or "x"):
            if part != os.path.basename(part) or part.startswith("."):
                raise Failed("failed", f"{part!r} is no plain name", BUG)
        return os.path.join(self.cache, key, name) if key else os.path.join(self.scratch, name)

    def _move(self, source: str, path: str) -> None:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.replace(source, path)

    def open(self, id: str, path: str, optimised: bool) -> Dict[str, Any]:
        """Load a graph with ONNX Runtime, with the settings of the same runtime on the host."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a class of its own for every status code
            text = "ONNX Runtime {} cannot load {}: {}"
            what = text.format(onnxruntime.__version__, os.path.basename(path), str(error).strip()[:500])
            raise Failed("failed", what, "Install a newer version there, or lower --set export.opset.") from None
        self.sessions[id] = session
        return {"provider": ", ".join(session.get_providers())}

    def feed(self, id: str, batch: int, tensors: List[Dict[str, Any]]) -> Dict[str, Any]:
        """The inputs that `infer` and `time` use, from files that were put."""
        import numpy

        arrays = {}
        for tensor in tensors:
            with open(self._place(tensor["file"], None), "rb") as file:
                flat = numpy.frombuffer(file.read(), numpy.dtype(tensor["dtype"]))
            arrays[tensor["name"]] = flat.reshape(tensor["shape"])
        self.feeds[id, batch] = arrays
        return {}

    def infer(self, id: str, batch: int) -> Dict[str, Any]:
        session = self.sessions[id]
        names = [output.name for output in session.get_outputs()]
        try:
            arrays = session.run(names, self.feeds[id, batch])
        except Exception as error:
            what = f"ONNX Runtime failed at batch {batch}: {str(error).strip()[:500]}"
            raise Failed("failed", what, "Check that the graph takes that batch.") from None
        outputs = [
            {
                "name": name,
                "dtype": str(array.dtype),
                "shape": list(array.shape),
                "base64": base64.b64encode(array.tobytes()).decode("ascii"),
            }
            for name, array in zip(names, arrays)
        ]
        return {"outputs": outputs}

    def time(self, id: str, batch: int, n: int, warmup: int) -> Dict[str, Any]:
        run, feeds, clock = self.sessions[id].run, self.feeds[id, batch], clock_ns
        involuntary = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        for _ in range(max(warmup, 1)):
            run(None, feeds)
        samples = []
        began = time.monotonic()
        for _ in range(n):
            start = clock()
            run(None, feeds)
            samples.append(clock() - start)
        span = [began, time.monotonic()]
        preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - involuntary
        return {"ns": samples, "preempted": preempted, "span": span}

    def close(self, id: str) -> Dict[str, Any]:
        self.sessions.pop(id, None)
        self.feeds = {key: feeds for key, feeds in self.feeds.items() if key[0] != id}
        return {}

    # ending

    def undo(self, command: List[str]) -> Dict[str, Any]:
        """A command to run at the end, in reverse order: what puts a setting back."""
        self._undo.append(command)
        return {}

    def end(self) -> None:
        """Put settings back, remove what is not cache, and end with every program that was started."""
        if not self._ending.acquire(False):
            return  # another thread is at it, or a signal came twice
        try:
            for program in list(self._programs):
                program.kill()
            for command in reversed(self._undo):
                found = self._find(command[0])
                if found is not None:
                    self._start([found] + command[1:]).wait(30)
            if self.scratch:
                shutil.rmtree(self.scratch, ignore_errors=True)
        finally:
            os.killpg(os.getpgrp(), signal.SIGKILL)


def quiet_cores(cores: List[int], count: int, seconds: float = 0.1) -> List[int]:
    """The `count` cores that were idle the most for a moment."""
    if len(cores) > count and os.path.exists("/proc/stat"):
        before = idle_ticks()
        time.sleep(seconds)
        after = idle_ticks()
        cores = sorted(cores, key=lambda core: (before.get(core, 0) - after.get(core, 0), -core))
    return sorted(cores[:count])


def idle_ticks() -> Dict[int, int]:
    with open("/proc/stat") as file:
        rows = [line.split() for line in file if line.startswith("cpu")]
    return {int(row[0][3:]): int(row[4]) for row in rows if row[0] != "cpu"}


def digest(path: str) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            sha.update(chunk)
    return sha.hexdigest()


def read_requests(stream: Any, requests: Any, agent: Agent) -> None:
    """In a thread of its own: the end of the connection is seen in the middle of a measurement, too."""
    while True:
        line = stream.readline()
        if not line.endswith(b"\n"):
            break
        request = json.loads(line.decode("utf-8"))
        if "payload" in request:
            request["payload"] = stream.read(request["payload"])
        requests.put(request)
    agent.end()


def answer(agent: Agent, request: Dict[str, Any]) -> Dict[str, Any]:
    try:
        return dict(getattr(agent, request.pop("op"))(**request))
    except Failed as error:
        return {"error": [error.what, error.fix], "kind": error.kind}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = f"no space left in {agent.cache} on the device"
            return {"error": [what, "Free some space there, or set ?cache=DIR."], "kind": "disk"}
        return {"error": [str(error), "Check that directory on the device."], "kind": "failed"}
    except Exception as error:
        return {"error": [f"{type(error).__name__}: {error}", BUG], "kind": "failed"}


def main() -> None:
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints must not end up among the replies
    agent = Agent(sys.argv[1], sys.argv[2])
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.end())
    requests = queue.Queue()  # type: Any
    threading.Thread(target=read_requests, args=(sys.stdin.buffer, requests, agent), daemon=True).start()
    try:
        while True:
            reply = answer(agent, requests.get(timeout=IDLE_S))
            replies.write(json.dumps(reply) + "\n")
            replies.flush()
    except (queue.Empty, OSError):
        agent.end()
    threading.Event().wait()  # until the thread that is at it ends this process


if __name__ == "__main__":
    main()
