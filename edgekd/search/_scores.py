"""The scores a search has so far, on disk, so that a killed one goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path

from edgekd import processes
from edgekd.search.scorers import Score
from edgekd.search.spaces import Genotype
from edgekd.stage import write_json

SAVE_SECONDS = 2.0


class ScoreBook:
    """Scores by genotype of `space`, written to `path` at most every two seconds; those of other `inputs` are not used.

    The evolution draws nothing from a clock, so replaying it over the book leads to where the killed search was.
    """

    def __init__(self, path: Path, inputs: str) -> None:
        self.path, self.inputs = path, inputs
        self.scores: dict[str, Score] = {}  # by str(genotype)
        self._before = 0.0
        record = processes.broadcast(json.loads(path.read_text()) if path.is_file() else {})
        if record.get("inputs") == inputs:
            self._before = record["seconds"]
            self.scores = {name: Score(*score) for name, *score in record["scores"]}
        self._start = self._saved = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent on this search, that of killed attempts included."""
        return self._before + time.perf_counter() - self._start

    def __contains__(self, genotype: Genotype) -> bool:
        return str(genotype) in self.scores

    def __getitem__(self, genotype: Genotype) -> Score:
        return self.scores[str(genotype)]

    def add(self, genotype: Genotype, score: Score) -> None:
        self.scores[str(genotype)] = score
        if time.perf_counter() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        if processes.rank():
            return
        rows = [[name, score.value, score.spread, dict(score.terms)] for name, score in self.scores.items()]
        write_json(self.path, {"inputs": self.inputs, "seconds": self.seconds, "scores": rows})
        self._saved = time.perf_counter()
