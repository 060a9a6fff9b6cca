"""The scores a search has so far, on disk, so that a killed one goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from edgekd.search.scorers import Score
from edgekd.search.spaces import Genotype, Space
from edgekd.stage import write_json

SAVE_SECONDS = 2.0


class ScoreBook:
    """Scores by genotype of `space`, written to `path` at most every two seconds; those of other `inputs` are not used.

    The evolution draws nothing from a clock, so replaying it over the book leads to where the killed search was.
    """

    def __init__(self, path: Path, inputs: str, space: Space) -> None:
        self.path, self.inputs = path, inputs
        self.scores: dict[Genotype, Score] = {}
        self._before = 0.0
        if path.is_file():
            record = json.loads(path.read_text())
            if record["inputs"] == inputs:
                self._before = record["seconds"]
                for text, value, spread in record["scores"]:
                    self.scores[space.read(text, str(path))] = Score(value, spread)
        self._start = self._saved = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent on this search, that of killed attempts included."""
        return self._before + time.perf_counter() - self._start

    def get(self, genotype: Genotype, compute: Callable[[], Score]) -> Score:
        if genotype not in self.scores:
            self.scores[genotype] = compute()
            if time.perf_counter() - self._saved > SAVE_SECONDS:
                self.save()
        return self.scores[genotype]

    def save(self) -> None:
        rows = [[str(genotype), score.value, score.spread] for genotype, score in self.scores.items()]
        write_json(self.path, {"inputs": self.inputs, "seconds": self.seconds, "scores": rows})
        self._saved = time.perf_counter()
