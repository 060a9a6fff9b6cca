"""What a KD method is: an `nn.Module` whose hooks all have a default but `loss`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.catalog import MethodRow
from edgekd.data import Split
from edgekd.data.augment import Pixels
from edgekd.models.taps import Outputs, Side

__all__ = ["Batch", "Method", "Network", "Outputs", "Setup", "Side"]

UNLABELLED = -1  # in place of a label


@dataclass(frozen=True)
class Batch:
    """One step's samples: the same augmented view for student and teacher, who normalise it each in their own way.

    Where images are mixed, `labels` are those of the first ones, which make up `mix` of each pixel, and `partners`
    those of the others. With one `mix` for all (`distill.mixup`) the trainer makes the loss mix * loss(labels) +
    (1 - mix) * loss(partners). A method whose `transform_batch` mixes each image by its own share sees to that itself.
    """

    pixels: Pixels  # uint8 [B, H, W, C], an array or, where the data are kept on a GPU, a tensor
    labels: Tensor  # [B], UNLABELLED where a stream of unlabelled images is mixed in
    samples: NDArray[np.int64]  # [B] rows of the training split
    view: int | NDArray[np.int64]  # of all, or of each [B]
    partners: Tensor | None = None  # [B]
    mix: float | Tensor = 1.0  # of all, or of each [B]

    def __getitem__(self, rows: slice) -> Batch:
        return replace(
            self,
            pixels=self.pixels[rows],
            labels=self.labels[rows],
            samples=self.samples[rows],
            view=self.view if isinstance(self.view, int) else self.view[rows],
            partners=None if self.partners is None else self.partners[rows],
            mix=self.mix[rows] if isinstance(self.mix, Tensor) else self.mix,
        )


@dataclass(frozen=True)
class Network:
    """A network for a method that runs it itself, in the normalisation that it wants; never a submodule of the method.

    `network(images)`: logits float32 [B, K] of images [B, C, H, W] in [0, 1], with gradient to the images.
    """

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.normalised(images))
        return logits.float()

    def normalised(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(value).to(images)[:, None, None] for value in (self.mean, self.std))
        return (images - mean) / std


@dataclass(frozen=True)
class Setup:
    """What a method is prepared with, before the first step; `labels` [N] are those of the training split.

    What follows `steps` is there for the rows that ask for it, and in a training alone.
    """

    student: Side
    teacher: Side | None  # None where the teacher gives only logits: then the row needs neither features nor embeddings
    num_classes: int
    labels: Tensor
    seed: int
    steps: int = 0  # of the optimizer, over the whole run; 0 where they are unknown, which schedules refuse
    student_network: Network | None = None
    teacher_network: Network | None = None  # of a row that needs `network`
    taught: Callable[[NDArray[np.int64]], Outputs] | None = None
    """The teacher's outputs for rows of the training split, of their first view: for one pass over the data."""
    held: Callable[[int, int], Batch] | None = None
    """`held(step, n)`: n of the held-out images, of a row that needs `held_out`."""
    table: Mapping[str, NDArray[np.float32]] | None = None  # its columns, [N] each, of a row that needs `table`
    val: Split | None = None  # validation images: they choose, and are not trained on


class Method(nn.Module):
    """Subclass, give `loss`, add a row to the catalogue. Trainable adapters are submodules and never ship.

    What a method needs of the networks is declared in its row: `features` fills `Outputs.features`, `embeddings`
    fills `Outputs.embeddings`, `student_embeddings` the student's alone. Modules of the student or the teacher that
    `prepare` hands over are kept out of the method's own parameters, in a tuple: the optimizer and the checkpoint have
    the student's already.

    Outputs come in float32, whatever the networks computed in. torch's generator is set from the seed and the step
    before every `prepare` and `loss`: what is drawn from it there is drawn again by a resumed run. State that a resumed
    run needs is a parameter or a buffer.

    An owner of the hard-label term (`owns_labels` in its row) takes `label_smoothing` and returns that term as `ce`;
    any other method returns its own terms only, and the trainer adds the cross-entropy.
    """

    minimum: ClassVar[float | None] = None
    """The least sum of the terms but `ce`: that of a student equal to the teacher, where adapters are identities."""

    record: Mapping[str, Any] | None = None
    """Of a method that `ships_extra`, after `export`: plain values with which its class builds the exported network
    again, `type(exported)(student, **record)`."""

    def row(self, row: MethodRow) -> MethodRow:
        """What the row of the catalogue says, where options change what is needed."""
        return row

    @property
    def hold_out(self) -> float:
        """Of a row that needs `held_out`: the share of the training images that the student is not trained on."""
        return 0.0

    def prepare(self, setup: Setup) -> None:
        """Make the adapters, from what `setup` gives and from nothing else; a resumed run calls it again."""

    def transform_batch(self, batch: Batch, step: int) -> Batch:
        """Change what both networks see (mixup, multi-crop). Default: as it is."""
        return batch

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        """Named, weighted scalar terms; their sum is minimised. `teacher` carries no gradient."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    @property
    def surgery(self) -> bool:
        """Whether `backward` changes the gradient; of several methods one may."""
        return type(self).backward is not Method.backward

    def backward(self, terms: dict[str, Tensor]) -> None:
        """Add the gradients of the sum to the parameters' `grad`; gradient surgery overrides this."""
        sum(terms.values()).backward()  # type: ignore[union-attr]

    def after_step(self, step: int) -> None:
        """Schedules and bilevel updates."""

    def export(self, student: nn.Module) -> nn.Module:
        """The network that ships: the plain student unless an extra head is kept or folded."""
        return student

    def report(self, out: Path) -> list[str]:
        """After the training: write pictures (.png) into `out`, and return sentences that the report shall show."""
        return []
