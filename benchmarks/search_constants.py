"""Weights of the default scorer, chosen without the tables they are reported on, and the weights that ship.

    python benchmarks/search_constants.py DATA [--sample 500] [--inits 3]

The tables form four families that share no networks: S0, NAS-Bench-201, AutoFormer and PiT. For each family the
weights of `macs`, `expressivity`, `width` and `jacov` are those of a grid with the highest Kendall tau on the other
three, the mean over families of the mean over their tables; `params` has weight 1. What they get on the family that had
no say stands beside what the shipped weights and the parameters alone get there. Where a weight changes nothing on the
other families (`jacov`, whose gate opens on one of them alone), the equal weight of AZ-NAS stands: of the grid's best
the one nearest to 1 throughout.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from _record import record
from scipy.stats import kendalltau
from search_rank import TABLES, Array, Table, large_task, task

from edgekd.search.scorers import ScoringTask
from edgekd.search.scorers.edgekd import WEIGHTS, Edgekd, in_order, places

FAMILIES = {
    "s0": ["s0"],
    "nb201": ["nb201-cifar10", "nb201-cifar100", "nb201-in16"],
    "autoformer": ["autoformer-c100", "autoformer-flower", "autoformer-chaoyang"],
    "pit": ["pit-c100", "pit-flower", "pit-chaoyang"],
}
CHOICES = (0.0, 0.25, 0.5, 0.75, 1.0)
NAMES = tuple(WEIGHTS)


def terms(table: Table, given: ScoringTask) -> Array:
    """Logarithms of places [networks, terms]; 0 throughout for a measure the scorer does not use on this table."""
    scorer = Edgekd(given)
    alive = [point for point in table.points if str(point.genotype) not in table.dead]
    scorer.settle(alive)
    found = [scorer.score(point).terms for point in alive]
    columns = [np.array([row.get(name, 0.0) for row in found]) for name in NAMES]
    return np.column_stack([np.log(places(in_order(column), column)) for column in columns])


def tau(columns: Array, weights: Array, accuracy: Array) -> float:
    return float(kendalltau(columns @ weights, accuracy)[0])


def nearest_equal(grid: list[Array], value: Array) -> int:
    """Place of the highest value; of several, of the weights nearest to 1."""
    tied = np.flatnonzero(value >= value.max() - 1e-12)
    return int(min(tied, key=lambda i: float(np.abs(grid[i] - 1).sum())))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--sample", type=int, default=500)
    parser.add_argument("--inits", type=int, default=3)
    options = parser.parse_args()
    given = task(options.data, options.inits, 64)
    columns: dict[str, Array] = {}
    accuracy: dict[str, Array] = {}
    for family, names in FAMILIES.items():
        for name in names:
            table = TABLES[name](options.data, options.sample)
            if family not in columns:
                columns[family] = terms(table, given if table.image_size == 32 else large_task(given))
            alive = [str(point.genotype) not in table.dead for point in table.points]
            accuracy[name] = table.accuracy[alive]
    grid = [np.array([1.0, *rest]) for rest in itertools.product(CHOICES, repeat=len(NAMES) - 1)]
    reached = {
        name: np.array([tau(columns[family], weights, accuracy[name]) for weights in grid])
        for family, names in FAMILIES.items()
        for name in names
    }
    means = {family: np.mean([reached[name] for name in names], axis=0) for family, names in FAMILIES.items()}
    shipped, params = np.array([WEIGHTS[name] for name in NAMES]), np.array([1.0] + [0.0] * (len(NAMES) - 1))
    rows: list[dict[str, Any]] = []
    for family, names in FAMILIES.items():
        others = [other for other in FAMILIES if other != family]
        best = nearest_equal(grid, np.mean([means[other] for other in others], axis=0))
        chosen = dict(zip(NAMES, grid[best].tolist(), strict=True))
        print(f"\n{family}: weights chosen on {', '.join(others)}: {chosen}")
        for name in names:
            row = {
                "table": name,
                "chosen_on": others,
                "weights": chosen,
                "tau": float(reached[name][best]),
                "tau_shipped": tau(columns[family], shipped, accuracy[name]),
                "tau_params": tau(columns[family], params, accuracy[name]),
            }
            rows.append(row)
            taus = {"tau": row["tau"], "shipped": row["tau_shipped"], "params": row["tau_params"]}
            print(f"  {name:<20}", "  ".join(f"{key} {value:.3f}" for key, value in taus.items()))
    record("search_constants", {"sample": options.sample, "inits": options.inits, "shipped": WEIGHTS, "rows": rows})


if __name__ == "__main__":
    main()
