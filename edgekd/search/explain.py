"""Why a search ranks one architecture where it does: its terms among the population, its limits, its layers' time."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.artifacts import ModelSpec
from edgekd.catalog import SPACES, find
from edgekd.config import SearchConfig
from edgekd.errors import RunDirectoryError
from edgekd.profile.operators import operators
from edgekd.search._ranking import ranks
from edgekd.search._scores import ScoreBook
from edgekd.search._task import make_scorer
from edgekd.search.latency import Latency, MeasuredLatency
from edgekd.search.limits import Limits
from edgekd.search.scorers import Score
from edgekd.search.spaces import Genotype, Space

if TYPE_CHECKING:
    from edgekd.data import Dataset
    from edgekd.profile.device import Device


def explain(
    directory: Path,
    text: str,
    *,
    teacher: ModelSpec,
    data: Dataset,
    device: Device,
    config: SearchConfig,
    seed: int,
    costs: Latency | None = None,
) -> dict[str, Any]:
    """What the search in `directory` makes of the point `text`, seen or not: place, terms, limits, time by layer.

    Raises ConfigError when it is no point of the space, RunDirectoryError for a search that scored nothing.
    """
    space: Space = find(SPACES, "search.space", config.space).load()(data.num_classes, data.input_shape, device)
    genotype = space.parse(text, "--explain")
    record = json.loads((directory / "search.json").read_text())
    book = ScoreBook.read(directory / "scores.json")
    if not book:
        raise RunDirectoryError(f"{directory} scored no candidates", "Leave out search.student and search again.")
    name, point = str(genotype), space.point(genotype)
    if name not in book:
        scorer = make_scorer(teacher, data, config, seed)
        scorer.restore(list(book.values())[: config.population])
        book = {**book, name: scorer.score(point)}
    names = list(book)
    figures = [score.value for score in book.values()]
    with ExitStack() as stack:
        costs = costs or stack.enter_context(MeasuredLatency(space, device))
        predicted = costs.predict(genotype)
        layers = _layers(space, genotype, costs)
    limits = Limits(config.max_params, config.max_macs, record["latency_limit_ms"])
    return {
        "name": name,
        "params": point.params,
        "macs": point.macs,
        "depth": point.depth,
        "score": figures[names.index(name)],
        "rank": ranks(figures)[names.index(name)],
        "of": len(names),
        "terms": _terms(book, name),
        "breaks": limits.broken(point.params, point.macs, predicted),
        "latency_ms": predicted,
        "layers": layers,
    }


def _terms(book: dict[str, Score], name: str) -> list[dict[str, Any]]:
    """Value and place of every term; of the score itself where a scorer has none."""
    columns = {term: [score.terms[term] for score in book.values()] for term in book[name].terms} or {
        "score": [score.value for score in book.values()]
    }
    place = list(book).index(name)
    return [{"term": term, "value": values[place], "rank": ranks(values)[place]} for term, values in columns.items()]


def _layers(space: Space, genotype: Genotype, costs: Latency) -> list[dict[str, Any]]:
    """Operators that are alike as one row: how many, their predicted time, its share of all."""
    counts = Counter(operators(space.network(genotype)))
    times = {op: count * costs.operator(op) for op, count in counts.items()}
    total = sum(times.values())
    return [{"layer": repr(op), "count": counts[op], "ms": ms, "share": ms / total} for op, ms in times.items()]
