"""Teacher targets in two modes that give the same numbers to fp16 rounding (design section 4).

`live` runs the teacher beside the student. `replay` runs it once over V augmented views of every training image and
stores its outputs in fp16, memory-mapped, [V, N, ...]: a view is a pure function of (seed, sample, view), so the
student sees exactly the image that the stored row was computed on.

A row holds all K logits. Above DENSE_CLASSES it holds the k largest log-probabilities, and one more for each of the
other classes, log(their mass / (K - k)): the probabilities of the k classes are exact, the rest is spread evenly.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd import processes
from edgekd.artifacts import ModelSpec
from edgekd.config import DistillConfig
from edgekd.data import Dataset
from edgekd.data.augment import Augment, normalise
from edgekd.distill.methods._base import Batch, Network, Outputs
from edgekd.errors import DiskFullError
from edgekd.progress import Progress
from edgekd.stage import fingerprint

CHUNK = 250  # images of one teacher forward; fixed, since the batch size enters the last bits of a convolution
DENSE_CLASSES = 1000
TOP = 100  # classes stored above that


class TeacherTargets(Protocol):
    """`targets(batch)` gives the teacher's Outputs for the views in `batch`, without gradient."""

    def __call__(self, batch: Batch) -> Outputs: ...


class LiveTargets:
    """Runs `teacher` on the batch in its own normalisation; `network` is what a method may run itself."""

    def __init__(
        self,
        teacher: Callable[[Tensor], Outputs],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        network: Network | None = None,
    ) -> None:
        self.teacher, self.mean, self.std, self.network = teacher, mean, std, network

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        return self.teacher(normalise(batch.pixels, self.mean, self.std).to(batch.labels.device))


@dataclass(frozen=True)
class Layout:
    """What is stored of one view of an image: `top` of the `classes` logits (all where None) and the embedding."""

    classes: int
    top: int | None = None
    embedding: int = 0

    @property
    def columns(self) -> dict[str, tuple[str, int]]:
        """The files: a dtype and the values of a row."""
        kept = self.classes if self.top is None else self.top
        columns = {"logits": ("<f2", kept)}
        if self.top is not None:
            columns |= {"classes": ("<i4", kept), "rest": ("<f2", 1)}
        if self.embedding:
            columns["embeddings"] = ("<f2", self.embedding)
        return columns

    @property
    def row_bytes(self) -> int:
        return sum(np.dtype(dtype).itemsize * width for dtype, width in self.columns.values())

    def pack(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        """Rows [B, ...] of each file."""
        rows = {"logits": outputs.logits}
        if self.top is not None:
            log_p = outputs.logits.log_softmax(1)
            values, classes = log_p.topk(self.top, 1)
            rest = log_p.scatter(1, classes, -torch.inf).logsumexp(1, keepdim=True)
            rows = {"logits": values, "classes": classes, "rest": rest - math.log(self.classes - self.top)}
        if self.embedding:
            assert outputs.embeddings is not None
            rows["embeddings"] = outputs.embeddings
        return {name: value.cpu().numpy().astype(self.columns[name][0]) for name, value in rows.items()}

    def unpack(self, rows: dict[str, NDArray[Any]], device: torch.device) -> Outputs:
        """What `pack` was given, up to rounding."""
        values = {name: torch.from_numpy(row.astype(np.float32)).to(device) for name, row in rows.items()}
        logits = values["logits"]
        if self.top is not None:
            logits = values["rest"].repeat(1, self.classes).scatter(1, values["classes"].long(), logits)
        return Outputs(logits, embeddings=values.get("embeddings"))


class ReplayTargets:
    """Reads what `replay` stored; `tables` by file, [V, N, ...]."""

    def __init__(self, tables: Mapping[str, NDArray[Any]], layout: Layout) -> None:
        self.tables, self.layout = tables, layout

    def __call__(self, batch: Batch) -> Outputs:
        rows = {name: table[batch.view, batch.samples] for name, table in self.tables.items()}
        return self.layout.unpack(rows, batch.labels.device)


def tables_name(
    teachers: Sequence[ModelSpec], layout: Layout, data: Dataset, augment: Augment, config: DistillConfig
) -> str:
    """A directory's name that stands for all that the tables depend on: runs that share it may share them."""
    content = hashlib.sha256(np.ascontiguousarray(data.train.images).data)
    content.update(np.ascontiguousarray(data.train.labels).data)  # CA-MKD goes by labels
    record = {
        "teachers": [teacher.fingerprint() for teacher in teachers],
        "mixture": [config.ensemble, config.weights],
        "layout": asdict(layout),
        "images": [data.train.images.shape, content.hexdigest()],
        "augment": asdict(augment),
        "views": config.views,
    }
    return fingerprint(record)[:16]


def replay(
    out: Path,
    live: TeacherTargets,
    layout: Layout,
    data: Dataset,
    augment: Augment,
    views: int,
    device: torch.device,
    progress: Progress,
) -> ReplayTargets:
    """Fill the tables under `out`, or go on with them: one byte a chunk says that it is there.

    Several processes take turns with the chunks. Raises DiskFullError before anything is computed.
    """
    n = len(data.train)
    chunks = [(view, np.arange(i, min(i + CHUNK, n))) for view in range(views) for i in range(0, n, CHUNK)]
    files = {name: (dtype, (views, n, width)) for name, (dtype, width) in layout.columns.items()}
    with _locked(out):
        if processes.rank() == 0:
            out.mkdir(parents=True, exist_ok=True)
            _allocate(out, files, len(chunks))
        processes.wait()
        done = np.memmap(out / "done", np.uint8, "r+", shape=(len(chunks),))
        left = [i for i in range(processes.rank(), len(chunks), processes.count()) if not done[i]]
        if left:
            tables = {name: np.memmap(out / name, dtype, "r+", shape=shape) for name, (dtype, shape) in files.items()}
            mine = len(range(processes.rank(), len(chunks), processes.count()))
            with progress.task("teacher targets", mine, mine - len(left)) as task:
                started = time.perf_counter()
                for count, position in enumerate(left):
                    view, samples = chunks[position]
                    pixels = augment(data.train.images[samples], samples, view)
                    labels = torch.from_numpy(data.train.labels[samples]).to(device)
                    for name, rows in layout.pack(live(Batch(pixels, labels, samples, view))).items():
                        tables[name][view, samples] = rows
                        tables[name].flush()
                    done[position] = 1
                    task.advance()
                    if not count:
                        seconds = (time.perf_counter() - started) * len(left)
                        size = views * n * layout.row_bytes
                        progress.note(f"teacher targets: {views} x {n:,} images, {size:,} bytes, about {seconds:.0f} s")
            done.flush()
        processes.wait()
    stored = {name: np.memmap(out / name, dtype, "r", shape=shape) for name, (dtype, shape) in files.items()}
    return ReplayTargets(stored, layout)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Until the block ends, no other run fills the tables under `out`; one that wants to waits."""
    if processes.rank():
        yield
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_name(f"{out.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _allocate(out: Path, files: Mapping[str, tuple[str, tuple[int, ...]]], chunks: int) -> None:
    """Room for the tables and for `done`, which comes last. Raises DiskFullError, naming the bytes."""
    if (out / "done").exists():
        return
    sizes = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, (dtype, shape) in files.items()}
    need, free = sum(sizes.values()) + chunks, shutil.disk_usage(out).free
    if need > free:
        raise DiskFullError(
            f"the teacher's targets take {need:,} bytes, and the disk of {out} has {free:,} left",
            "Free some space, lower distill.views, or set distill.targets to live.",
        )
    for name, size in sizes.items():
        with (out / name).open("wb") as file:  # a full disk is an error here; under a sparse file it would be a SIGBUS
            os.posix_fallocate(file.fileno(), 0, size)
    partial = out / ".done"
    partial.write_bytes(bytes(chunks))
    partial.rename(out / "done")
