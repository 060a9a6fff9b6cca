"""Aging evolution (Real et al. 2019) under limits that hold for every individual, not only for the first."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgekd.search.scorers import Score
from edgekd.search.spaces import Genotype, Space

PATIENCE = 200  # draws without a new legal individual after which a space counts as exhausted


@dataclass(frozen=True)
class Individual:
    genotype: Genotype
    score: Score


def evolve(
    space: Space,
    score: Callable[[Genotype], Score],
    admits: Callable[[Genotype], bool],
    *,
    evaluations: int,
    population: int,
    tournament: int,
    generator: random.Random,
) -> list[Individual]:
    """Score up to `evaluations` different legal genotypes; returns them in that order, fewer if there are no more.

    The first `population` are random points that shrink until the limits admit them. Then each child has two parents,
    each the best of `tournament` random individuals, is crossed over and mutated, and replaces the oldest. A child that
    the limits refuse or that was seen before is drawn again. The choice depends on nothing but the generator and the
    scores, so a search goes on after a kill by running again with the scores it has. `space.smallest()` must be legal.
    """
    everyone: dict[Genotype, Individual] = {}
    alive: deque[Individual] = deque(maxlen=max(2, population))

    def parent() -> Genotype:
        rivals = generator.sample(list(alive), min(tournament, len(alive)))
        return max(rivals, key=lambda individual: individual.score.value).genotype

    def child() -> Genotype:
        return space.mutate(space.crossover(parent(), parent(), generator), generator)

    def founder() -> Genotype:
        genotype = space.sample(generator)
        while not admits(genotype):
            genotype = space.shrink(genotype, generator)
        return genotype

    def draw() -> Genotype | None:
        for attempt in range(PATIENCE):
            grown = len(everyone) >= population and attempt < PATIENCE // 2  # a stuck lineage gets fresh blood
            genotype = child() if grown else founder()
            if genotype not in everyone and admits(genotype):
                return genotype
        return None

    while len(everyone) < evaluations and (genotype := draw()) is not None:
        individual = Individual(genotype, score(genotype))
        everyone[genotype] = individual
        alive.append(individual)
    return list(everyone.values())
