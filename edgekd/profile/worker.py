"""The process that measures: JSON requests on stdin, one JSON reply a line on stdout.

`python -m edgekd.profile.worker` imports numpy and one runtime, nothing that would keep threads or memory of its own.
Requests: `start` (pin, load nothing yet), `open` (an engine, under an id), `time` (n runs of one), `infer` (arrays in a
file), `layers` (a profile of one), `snapshot` (the machine's state), `close`. An error is a reply too: {"error": [what,
fix]}. It ends when stdin closes, so it never outlives the run that started it.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.artifacts import Engine
from edgekd.catalog import BACKENDS, find
from edgekd.errors import EdgekdError
from edgekd.profile.backends._base import Backend, Feeds, Session
from edgekd.profile.conditions import WINDOW, others, snapshot
from edgekd.profile.machine import cpu_name, isa_features, package_version, usable_cores

VERSIONS = ("numpy", "onnxruntime", "onnxruntime-gpu", "onnxruntime-ep-nv-tensorrt-rtx-cu13", "tensorrt", "torch")


class Worker:
    def __init__(self) -> None:
        self.threads = 1
        self.cores: list[int] = []
        self.sessions: dict[str, Session] = {}
        self.opened: dict[str, tuple[Backend, Engine]] = {}
        self.feeds: dict[tuple[str, int], Feeds] = {}
        self.runtime_ns = 0  # inside the runtimes, of all requests

    def start(self, threads: int) -> dict[str, Any]:
        """Pin this process, before any runtime starts threads; returns the conditions that stay."""
        self.threads = threads
        before = snapshot([])
        self.cores = quiet_cores(threads)
        disturbed = others(before, snapshot([]))
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)
        versions = {"python": platform.python_version()}
        versions |= {name: found for name in VERSIONS if (found := package_version(name))}
        return {
            "process": "own",
            "threads": threads,
            "cores": self.cores if hasattr(os, "sched_setaffinity") else None,
            "cpu": cpu_name(),
            "isa": sorted(isa_features()),
            "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
            "governor": governor(self.cores[0]),
            "versions": versions,
            "clock": "perf_counter_ns, host to host",
            "inputs": "random normal, seed 0, made before timing",
            "busy_cores_before": None if disturbed is None else round(disturbed[0], 2),
        }

    def open(self, id: str, backend: str, engine: dict[str, Any], cuda_graph: bool = False) -> dict[str, Any]:
        runtime: Backend = find(BACKENDS, "device.backend", backend).load()()
        loaded = Engine.from_json(engine)
        with self._inside():
            session = runtime.open(loaded, self.threads, cuda_graph)
        self.sessions[id], self.opened[id] = session, (runtime, loaded)
        return {"provider": session.provider, "settings": session.settings}

    def time(self, id: str, batch: int, n: int, warmup: int) -> dict[str, Any]:
        feeds, session = self._feeds(id, batch), self.sessions[id]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        with self._inside():
            samples = session.time(feeds, n, warmup)
        preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before
        return {"ns": samples, "preempted": preempted, "phases": session.phases}

    def infer(self, id: str, file: str) -> dict[str, Any]:
        """Read inputs from an .npz file and leave the outputs there instead."""
        with np.load(file) as arrays:
            feeds = dict(arrays)
        with self._inside():
            outputs = self.sessions[id].infer(feeds)
        np.savez(file, **outputs)  # type: ignore[arg-type]  # its other arguments are none of ours
        return {}

    def inputs(self, id: str) -> dict[str, Any]:
        return {"inputs": [[name, dtype.name, shape] for name, (dtype, shape) in self.sessions[id].inputs.items()]}

    def layers(self, id: str, batch: int, runs: int) -> dict[str, Any]:
        runtime, engine = self.opened[id]
        with self._inside():
            return {"layers": runtime.layers(engine, self._feeds(id, batch), runs, self.threads)}

    def snapshot(self) -> dict[str, Any]:
        return {**snapshot(self.cores), "runtime_s": self.runtime_ns / 1e9}

    def close(self, id: str) -> dict[str, Any]:
        self.sessions.pop(id).__exit__(None, None, None)
        self.feeds = {key: feeds for key, feeds in self.feeds.items() if key[0] != id}
        return {}

    def _feeds(self, id: str, batch: int) -> Feeds:
        if (id, batch) not in self.feeds:
            self.feeds[id, batch] = random_feeds(self.sessions[id], batch)
        return self.feeds[id, batch]

    @contextmanager
    def _inside(self) -> Iterator[None]:
        started = time.perf_counter_ns()
        yield
        self.runtime_ns += time.perf_counter_ns() - started


def random_feeds(session: Session, batch: int) -> Feeds:
    """Every input at `batch`: standard normal floats, uniform integers. Only the first dimension may be dynamic."""
    random = np.random.default_rng(0)
    feeds: Feeds = {}
    for name, (dtype, shape) in session.inputs.items():
        sizes = (batch, *(1 if size is None else size for size in shape[1:]))
        if dtype.kind == "f":
            feeds[name] = random.standard_normal(sizes, np.float32).astype(dtype)
        else:
            limits = np.iinfo(dtype)
            feeds[name] = random.integers(limits.min, limits.max, sizes, dtype, endpoint=True)
    return feeds


def quiet_cores(count: int, seconds: float = 1.2 * WINDOW) -> list[int]:
    """The `count` usable cores that were idle the most for a moment: pinning beside a busy neighbour measures both."""
    cores = usable_cores()
    if Path("/proc/stat").exists():
        before = _idle_ticks()
        time.sleep(seconds)
        after = _idle_ticks()
        cores = sorted(cores, key=lambda core: (before.get(core, 0) - after.get(core, 0), -core))
    return sorted(cores[:count])


def _idle_ticks() -> dict[int, int]:
    rows = (line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu"))
    return {int(row[0][3:]): int(row[4]) for row in rows if row[0] != "cpu"}


def governor(core: int) -> str | None:
    """The frequency governor; None where the system does not tell, as in most virtual machines."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints must not end up among the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    worker = Worker()
    handlers: dict[str, Callable[..., dict[str, Any]]] = {}
    operations = ("start", "open", "time", "infer", "inputs", "layers", "snapshot", "close")
    handlers |= {name: getattr(worker, name) for name in operations}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = handlers[request.pop("op")](**request)
        except EdgekdError as error:
            reply = {"error": [error.what, error.fix]}
        except Exception as error:
            reply = {"error": [f"{type(error).__name__}: {error}", "This is a bug in edgekd: please report it."]}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
