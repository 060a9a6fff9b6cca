"""Teacher targets in two modes that give the same numbers to fp16 rounding (design section 4).

`live` runs the teacher beside the student. `replay` runs it once over V augmented views of every training image and
stores the logits, fp16, memory-mapped, [V, N, K]: a view is a pure function of (seed, sample, view), so the student
sees exactly the image that the stored row was computed on.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgekd.data import Dataset
from edgekd.data.augment import Augment, normalise
from edgekd.distill.methods._base import Batch, Outputs
from edgekd.progress import Progress
from edgekd.stage import write_atomic

CHUNK = 250  # images of one teacher forward; fixed, since the batch size enters the last bits of a convolution


class TeacherTargets(Protocol):
    """`targets(batch)` gives the teacher's Outputs for the views in `batch`, without gradient."""

    def __call__(self, batch: Batch) -> Outputs: ...


class LiveTargets:
    def __init__(self, teacher: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.teacher, self.mean, self.std = teacher.eval(), mean, std

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        images = normalise(batch.pixels, self.mean, self.std).to(batch.labels.device)
        return Outputs(self.teacher(images).float())


class ReplayTargets:
    def __init__(self, table: NDArray[np.float16]) -> None:
        self.table = table  # [V, N, K]

    def __call__(self, batch: Batch) -> Outputs:
        rows = torch.from_numpy(self.table[batch.view, batch.samples].astype(np.float32))
        return Outputs(rows.to(batch.labels.device))


def replay(
    out: Path,
    live: LiveTargets,
    data: Dataset,
    augment: Augment,
    views: int,
    device: torch.device,
    progress: Progress,
) -> ReplayTargets:
    """Compute the table under `out` or go on with it: chunks are written in order and `done` counts them."""
    n, shape = len(data.train), (views, len(data.train), data.num_classes)
    out.mkdir(exist_ok=True)
    path, counter = out / "logits.f16", out / "done"
    done = int(counter.read_text()) if counter.exists() and path.exists() else 0
    chunks = [(view, i) for view in range(views) for i in range(0, n, CHUNK)]
    if done < len(chunks):
        if not done:
            with path.open("wb") as file:  # a full disk is an error here; under a sparse file it would be a SIGBUS
                os.posix_fallocate(file.fileno(), 0, 2 * math.prod(shape))
        table = np.memmap(path, np.float16, "r+", shape=shape)
        with progress.task("teacher targets", len(chunks), done) as task:
            for position in range(done, len(chunks)):
                view, i = chunks[position]
                samples = np.arange(i, min(i + CHUNK, n))
                pixels = augment(data.train.images[samples], samples, view)
                labels = torch.empty(0, dtype=torch.long, device=device)
                table[view, samples] = live(Batch(pixels, labels, samples, view)).logits.cpu().numpy()
                task.advance()
                if position % 20 == 19 or position + 1 == len(chunks):
                    table.flush()
                    write_atomic(counter, str(position + 1).encode())
        del table
    return ReplayTargets(np.memmap(path, np.float16, "r", shape=shape))
