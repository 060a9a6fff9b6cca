"""What operators and graphs cost on a device, measured once and kept: the same table gives the same search."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from edgekd.artifacts import OnnxModel
from edgekd.catalog import BACKENDS, find
from edgekd.errors import BackendError
from edgekd.profile._client import WorkerClient
from edgekd.profile.device import Device
from edgekd.profile.devices import device_identity
from edgekd.profile.graphs import OPSET, Precision, build_copies, build_input
from edgekd.profile.operators import Input, Layer, Operator, operators
from edgekd.stage import digest_file, fingerprint, write_json

PROTOCOL = 1  # raise it when a change here changes the figures: tables of another protocol are left alone
ROUNDS, MOST_ROUNDS = (
    7,
    40,
)  # the quietest round counts, for noise only adds time; more of them until the best two agree
AGREE = 1.02
FEW, MANY = 2, 6  # copies of an operator whose difference is the cost of MANY - FEW
ROUND_MS = 4.0  # aimed-at length of a round of one graph


def cache_directory() -> Path:
    """`$EDGEKD_CACHE`, else `~/.cache/edgekd`."""
    return Path(os.environ.get("EDGEKD_CACHE") or Path.home() / ".cache" / "edgekd")


class LatencyTable:
    """Milliseconds by key, for batch 1 on one thread of one device, kept in `<cache>/latency/<identity>.json`.

    Several processes may share a table: what one wrote first, the others use. The measuring process starts with the
    first unknown key and lives until `close()`.
    """

    def __init__(self, device: Device, directory: Path | None = None) -> None:
        self.device = device
        self.identity = {**device_identity(device), "protocol": str(PROTOCOL)}
        self.path = (directory or cache_directory() / "latency") / f"{fingerprint(self.identity)[:32]}.json"
        self._entries = self._read()
        self._worker: WorkerClient | None = None
        self._alone = False

    def get(self, key: str, measure: Callable[[], float]) -> float:
        """The entry, measured and kept when it is not there yet."""
        if key not in self._entries:
            with self._locked():  # one measures at a time; who waited for it finds it measured
                self._entries = self._read()
                if key not in self._entries:
                    self._entries[key] = measure()
                    write_json(self.path, {"identity": self.identity, "latency_ms": self._entries})
        return self._entries[key]

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def worker(self) -> WorkerClient:
        """The pinned single-thread measuring process, started when first asked for."""
        if self._worker is None:
            self._worker = WorkerClient(self.device, threads=1)
        return self._worker

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __enter__(self) -> LatencyTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> dict[str, float]:
        try:
            entries: dict[str, float] = json.loads(self.path.read_text())["latency_ms"]
        except FileNotFoundError:
            return {}
        except (json.JSONDecodeError, KeyError):
            raise BackendError(
                f"the latency table {self.path} is damaged", "Delete it: it is measured again."
            ) from None
        return entries

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the table; a measurement may ask for other entries in turn."""
        if self._alone:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._alone = True
            try:
                yield
            finally:
                self._alone = False


def operator_latency_ms(table: LatencyTable, device: Device, op: Operator, precision: Precision = "int8") -> float:
    """What `op` adds to a network at batch 1 on one thread of `device`, in ms.

    The difference between six and two copies over four, so quantization at the graph's edges and the call cancel out;
    for `Input` it is the whole time of a graph that only takes images in. Raises BackendError.
    """

    def measure() -> float:
        if isinstance(op, Input):
            return _quietest_ms(table.worker, [build_input(op, precision)], device)[0]
        graphs = [build_copies(op, copies, precision) for copies in (FEW, MANY)]
        for _ in range(3):
            few, many = _quietest_ms(table.worker, graphs, device)
            if many > few:
                return (many - few) / (MANY - FEW)
        raise BackendError(f"cannot time {op}: {MANY} copies run no longer than {FEW}", "Wait for a quieter machine.")

    return table.get(f"operator {precision} {op!r}", measure)


def network_latency_ms(
    table: LatencyTable, device: Device, network: Iterable[Layer], precision: Precision = "int8"
) -> float:
    """The sum of a network's operators in ms: an estimate; `graph_latency_ms` of the whole graph is a measurement."""
    return sum(operator_latency_ms(table, device, op, precision) for op in operators(network))


def graph_latency_ms(table: LatencyTable, device: Device, graph: Path | bytes, key: str = "") -> float:
    """A whole graph at batch 1 on one thread, in ms: an ONNX file, or the bytes `graphs.build_network` returns.

    Kept by the graph's content (a file's external weights do not count: they do not change the time) and `key`.
    """
    content = digest_file(graph) if isinstance(graph, Path) else hashlib.sha256(graph).hexdigest()
    return table.get(f"graph {key} {content}", lambda: _quietest_ms(table.worker, [graph], device)[0])


def _quietest_ms(worker: WorkerClient, graphs: Sequence[Path | bytes], device: Device) -> list[float]:
    """Every graph's quietest round (its median), the graphs taking turns."""
    backend = find(BACKENDS, "device.backend", device.backend).load()()
    with tempfile.TemporaryDirectory(prefix="edgekd-") as directory:
        for i, graph in enumerate(graphs):
            path = Path(directory) / f"{i}.onnx" if isinstance(graph, bytes) else graph
            if isinstance(graph, bytes):
                path.write_bytes(graph)
            model = OnnxModel(str(path), f"graph-{i}", "unknown", OPSET, (0, 0, 0))
            worker.open(f"table-{i}", backend.build(model, device))
    ids = [f"table-{i}" for i in range(len(graphs))]
    medians: list[list[float]] = [[] for _ in ids]
    try:
        runs = [_runs(worker, id) for id in ids]
        while len(medians[0]) < ROUNDS or (len(medians[0]) < MOST_ROUNDS and not all(map(_settled, medians))):
            for i, id in enumerate(ids):
                medians[i].append(statistics.median(worker.time(id, 1, runs[i], 2)[0]))
    finally:
        for id in ids:
            worker.release(id)
    return [min(column) / 1e6 for column in medians]


def _settled(medians: list[float]) -> bool:
    best, second = sorted(medians)[:2]
    return second <= AGREE * best


def _runs(worker: WorkerClient, id: str) -> int:
    once = min(worker.time(id, 1, 3, 2)[0]) / 1e6
    return max(5, min(25, int(ROUND_MS / once)))
