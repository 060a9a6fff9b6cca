"""Search spaces: what a genotype is, which ones exist, what they cost. One space a file."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from edgekd.artifacts import ModelSpec
from edgekd.profile.operators import Layer


@dataclass(frozen=True)
class Genotype:
    """Blocks a stage and channels a stage."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]

    def __str__(self) -> str:
        return f"depths={','.join(map(str, self.depths))} widths={','.join(map(str, self.widths))}"


@dataclass(frozen=True)
class Point:
    """A genotype with its closed-form figures: trainable parameters, multiply-accumulates of an image, blocks in a row.

    `expressivity` is the sum over those blocks of log(channels), in nats: the entropy of their features' spectra
    cannot exceed it.
    """

    genotype: Genotype
    spec: ModelSpec
    params: int
    macs: int
    depth: int
    expressivity: float


class Space(Protocol):
    """A set of architectures for one task's classes and input shape (C, H, W)."""

    name: str
    named: dict[str, Genotype]

    def __init__(self, num_classes: int, input_shape: tuple[int, int, int]) -> None: ...

    def illegal(self, genotype: Genotype) -> str | None:
        """Why the genotype is not in the space, or None."""

    def point(self, genotype: Genotype) -> Point: ...

    def network(self, genotype: Genotype) -> list[Layer]:
        """The deployed graph's layers, to be timed."""

    def parse(self, text: str) -> Genotype:
        """The genotype a config names. Raises ConfigError."""

    def smallest(self) -> Genotype:
        """The point that has the fewest parameters and MACs of all."""

    def sample(self, generator: random.Random) -> Genotype: ...

    def mutate(self, genotype: Genotype, generator: random.Random) -> Genotype: ...

    def crossover(self, a: Genotype, b: Genotype, generator: random.Random) -> Genotype: ...

    def shrink(self, genotype: Genotype, generator: random.Random) -> Genotype:
        """A step towards `smallest()`, which shrinks to itself."""
