"""Aging evolution (Real et al. 2019) under limits that hold for every individual, not only for the first."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from edgekd.search.spaces import Genotype, Space

PATIENCE = 200  # draws without a new legal individual after which a space counts as exhausted
BROOD = 8  # children drawn before they are scored, by several processes at once where there are several


class Judge(Protocol):
    """What an evolution asks of whoever scores its individuals."""

    def settle(self, founders: Sequence[Genotype]) -> None:
        """The first population, before it is scored: decide what a score is made of."""

    def score(self, genotypes: Sequence[Genotype]) -> None:
        """Score them, once each."""

    def value(self, genotype: Genotype) -> float:
        """The score of one that was scored; higher is better."""


def evolve(
    space: Space,
    judge: Judge,
    admits: Callable[[Genotype], bool],
    *,
    evaluations: int,
    population: int,
    tournament: int,
    generator: random.Random,
) -> list[Genotype]:
    """Score up to `evaluations` different legal genotypes; returns them in that order, fewer if there are no more.

    The first `population` are random points that shrink until the limits admit them. Then each child has two parents,
    each the best of `tournament` random individuals, is crossed over and mutated, and replaces the oldest. A child that
    the limits refuse or that was seen before is drawn again. The choice depends on nothing but the generator and the
    scores, so a search goes on after a kill by running again with the scores it has, and is the same on any number of
    processes. `space.smallest()` must be legal.
    """
    everyone: dict[Genotype, None] = {}  # in the order of scoring
    alive: deque[Genotype] = deque(maxlen=max(2, population))

    def parent() -> Genotype:
        rivals = generator.sample(list(alive), min(tournament, len(alive)))
        return max(rivals, key=judge.value)

    def child() -> Genotype:
        return space.mutate(space.crossover(parent(), parent(), generator), generator)

    def founder() -> Genotype:
        genotype = space.sample(generator)
        while not admits(genotype):
            genotype = space.shrink(genotype, generator)
        return genotype

    def brood(size: int) -> list[Genotype]:
        drawn: dict[Genotype, None] = {}
        failures = 0
        while len(drawn) < size and failures < PATIENCE:
            grown = len(everyone) >= population and failures < PATIENCE // 2  # a stuck lineage gets fresh blood
            genotype = child() if grown else founder()
            if genotype in everyone or genotype in drawn or not admits(genotype):
                failures += 1
            else:
                drawn[genotype] = None
                failures = 0
        return list(drawn)

    size = min(population, evaluations)
    while size > 0 and (genotypes := brood(size)):
        if not everyone:
            judge.settle(genotypes)
        judge.score(genotypes)
        alive.extend(genotypes)
        everyone |= dict.fromkeys(genotypes)
        size = min(BROOD, evaluations - len(everyone))
    return list(everyone)
