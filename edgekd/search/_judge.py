"""Scores a search's candidates once each, every process its share: all of them run the same evolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from edgekd import processes
from edgekd.search._scores import ScoreBook
from edgekd.search.scorers import Scorer
from edgekd.search.spaces import Genotype, Space


class ScoringJudge:
    """The `Judge` of an evolution. `make_scorer` is called once; `advance` for every candidate."""

    def __init__(
        self, book: ScoreBook, space: Space, make_scorer: Callable[[], Scorer], advance: Callable[[], None]
    ) -> None:
        self.book, self.space, self.advance = book, space, advance
        self._make_scorer = make_scorer

    @cached_property
    def scorer(self) -> Scorer:
        return self._make_scorer()

    def score(self, genotypes: Sequence[Genotype]) -> None:
        new = [genotype for genotype in genotypes if genotype not in self.book]
        share = []
        for genotype in new[processes.rank() :: processes.count()]:
            score = self.scorer.score(self.space.point(genotype))
            self.book.add(genotype, score)
            share.append((genotype, score))
            self.advance()
        for others in processes.gather(share) if new else []:
            for genotype, score in others:
                self.book.add(genotype, score)

    def settle(self, founders: Sequence[Genotype]) -> None:
        self.scorer.settle([self.space.point(genotype) for genotype in founders])

    def value(self, genotype: Genotype) -> float:
        return self.book[genotype].value
