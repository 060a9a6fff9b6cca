"""Augmented batches where the training happens: cut out on the GPU that holds the images, or made ahead by workers.

All ways give the same bytes, since a view is a function of (seed, sample, view) alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from edgekd.data.augment import Augment, Pixels
from edgekd.data.dataset import Images

Plan = Sequence[tuple[NDArray[np.int64], "int | NDArray[np.int64]"]]  # (samples [B], their views) of each step


class Loader:
    """`for pixels in loader(plan)`: uint8 [B, H, W, C] of each step, on a GPU where the training is on one.

    Images that fit into a quarter of its free memory stay there. Otherwise `workers` processes make batches ahead; on
    a CPU they would only take cores from the training. `resident` and `workers` None: chosen so.
    """

    def __init__(
        self,
        images: Images,
        augment: Augment,
        device: torch.device,
        resident: bool | None = None,
        workers: int | None = None,
    ) -> None:
        self.images, self.augment, self.device = images, augment, device
        if resident is None:
            resident = device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 4
        self.resident = torch.from_numpy(images).to(device) if resident else None
        self.workers = (min(4, os.cpu_count() or 1) if device.type == "cuda" else 0) if workers is None else workers

    def __call__(self, plan: Plan) -> Iterator[Pixels]:
        if self.resident is not None:
            for samples, views in plan:
                yield self.augment.on_device(self.resident, samples, views)
        elif self.workers:
            ahead = _Ahead(self.images, self.augment, plan)
            cuda = self.device.type == "cuda"
            for pixels in DataLoader(ahead, batch_size=None, num_workers=self.workers, pin_memory=cuda):
                yield pixels.to(self.device, non_blocking=True)
        else:
            for samples, views in plan:
                pixels = self.augment(self.images[samples], samples, views)
                yield pixels if self.device.type == "cpu" else torch.from_numpy(pixels).to(self.device)


class _Ahead(Dataset[NDArray[np.uint8]]):
    """The steps of a plan, for workers."""

    def __init__(self, images: Images, augment: Augment, plan: Plan) -> None:
        self.images, self.augment, self.plan = images, augment, plan

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> NDArray[np.uint8]:
        samples, views = self.plan[step]
        return self.augment(self.images[samples], samples, views)
