"""Every scorer on published tables of trained architectures: how well does a training-free score rank them?

    python benchmarks/search_rank.py DATA [--tables s0,nb201-cifar100] [--scorers params,naswot] [--sample 500]

DATA holds `nas/` (DisWOT's 64 ResNets, NAS-Bench-201, AutoFormer's and PiT's transformers), a CIFAR-100 sheet archive
and its ResNet-56 teacher. The networks are built and scored on real images. For each table: Kendall's tau and
Spearman's rho with 95 % bootstrap intervals, tau inside bins of equal MACs, the accuracy lost by taking the best of a
scorer's top five, and seconds. `edgekd, 20 labels` is the default scorer calibrated on 20 of the accuracies, and ranks
the networks that remain; params and the default stand beside it on those. A table is recorded when it is done; with
`--store DIR` a run that was cut goes on after the last scorer it finished.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _cifar100 import CIFAR100, IMAGES, SHAPE, teacher_of
from _record import record
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr
from torch.nn import functional as F

from edgekd.artifacts import ModelSpec
from edgekd.catalog import SCORERS, find
from edgekd.data import load_dataset
from edgekd.data.augment import normalise
from edgekd.models.nasbench201 import live_edges, parse
from edgekd.search.calibration import calibrate, choose
from edgekd.search.scorers import Score, ScoringTask
from edgekd.search.spaces import Genotype, Point
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace
from edgekd.search.spaces.nasbench201 import NasBench201Space
from edgekd.stage import fingerprint, write_atomic

VIT = (3, 224, 224)
VIT_DATA = ("c100", "flower", "chaoyang")
VIT_BATCH = 16  # at 224 x 224; the tables' own students saw CIFAR images at that size
BINS, BOOTSTRAPS, TOP, LABELS = 5, 2000, 5, 20

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Points and their accuracy; `baselines` are further columns to rank by; the `dead` come last by any scorer."""

    points: list[Point]
    accuracy: Array
    baselines: dict[str, Array]
    image_size: int = 32
    dead: frozenset[str] = frozenset()

    def part(self, places: Sequence[int]) -> Table:
        return replace(self, points=[self.points[i] for i in places], accuracy=self.accuracy[places])


def s0(data: Path, sample: int) -> Table:
    """64 CIFAR-100 ResNets by depth, distilled; vanilla accuracy stands beside."""
    del sample
    kd, vanilla = (
        dict(line.split() for line in (data / f"nas/diswot_s0/s1-gt-{kind}.txt").read_text().splitlines())
        for kind in ("kd", "cls")
    )
    space = CifarResNetSpace(100, SHAPE)
    points = [space.point(Genotype(depths=tuple(map(int, key)), widths=(16, 32, 64))) for key in kd]
    return Table(
        points, np.array([float(v) for v in kd.values()]), {"vanilla": np.array([float(vanilla[k]) for k in kd])}
    )


def nb201(column: str, *less: str) -> Callable[[Path, int], Table]:
    """`sample` of the 15,625 cells by a column, or by its gain over another.

    The published parameter count, dead edges included, stands beside.
    """

    def load(data: Path, sample: int) -> Table:
        with (data / "nas/nasbench201_master.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if all(row[name] for name in (column, *less))]
        rows = [rows[i] for i in np.random.default_rng(0).choice(len(rows), min(sample, len(rows)), replace=False)]
        published = np.array([9.0 * int(r["n_conv3x3"]) + int(r["n_conv1x1"]) for r in rows])
        space = NasBench201Space(100, SHAPE)
        points = [space.point(Genotype(operations=parse(row["arch_str"]))) for row in rows]
        return Table(
            points,
            np.array([float(row[column]) - sum(float(row[name]) for name in less) for row in rows]),
            {"published params": published},
            dead=frozenset(str(p.genotype) for p in points if not live_edges(p.genotype.operations)),
        )

    return load


def vit(file: str, column: str, point: Callable[[dict[str, Any]], Point]) -> Callable[[Path, int], Table]:
    """100 transformers distilled from a convolutional ResNet-56; vanilla accuracy stands beside."""

    def load(data: Path, sample: int) -> Table:
        del sample
        rows = json.loads((data / "nas/autoprox_vit" / file).read_text())
        accuracy, vanilla = (np.array([row[f"{column}_{kind}_acc"] for row in rows]) for kind in ("kd", "base"))
        return Table([point(row["arch"]) for row in rows], accuracy, {"vanilla": vanilla}, image_size=224)

    return load


def autoformer_point(arch: dict[str, Any]) -> Point:
    """Parameters and MACs of the blocks alone, as the published baselines count them; the space counts all."""
    width, tokens = arch["hidden_dim"], (224 // 16) ** 2 + 1
    kwargs = {key: arch[key] for key in ("hidden_dim", "num_heads", "mlp_ratio")}
    params = macs = 0
    for heads, ratio in zip(arch["num_heads"], arch["mlp_ratio"], strict=True):
        weights = 4 * width * 64 * heads + 2 * width * int(width * ratio)
        params, macs = params + weights, macs + tokens * weights + 2 * tokens**2 * 64 * heads
    spec = ModelSpec("edgekd", "autoformer", 100, VIT, kwargs)
    return Point(json.dumps(arch), spec, params, macs, arch["depth"], arch["depth"] * math.log(width))


def pit_point(arch: dict[str, Any]) -> Point:
    params = macs = 0
    entropy = 0.0
    side = 27
    for heads, blocks in zip(arch["num_heads"], arch["depth"], strict=True):
        width, tokens = arch["base_dim"] * heads, side**2 + 1
        weights = blocks * (4 + 2 * arch["mlp_ratio"]) * width**2
        params, macs = params + weights, macs + tokens * weights + blocks * 2 * tokens**2 * width
        entropy += blocks * math.log(width)
        side = (side + 1) // 2
    return Point(
        json.dumps(arch), ModelSpec("edgekd", "pit", 100, VIT, arch), params, macs, sum(arch["depth"]), entropy
    )


TABLES: dict[str, Callable[[Path, int], Table]] = {
    "s0": s0,
    "nb201-cifar10": nb201("val_cifar10"),
    "nb201-cifar100": nb201("val_cifar100"),
    "nb201-in16": nb201("val_in16"),
    "nb201-int8": nb201("espdl_int8_acc_seed888"),
    "nb201-int8-gain": nb201("espdl_int8_acc_seed888", "fp32_acc_seed888"),
    **{f"autoformer-{column}": vit("gt_autoformer.json", column, autoformer_point) for column in VIT_DATA},
    **{f"pit-{column}": vit("gt_pit.json", column, pit_point) for column in VIT_DATA},
}


def figures(scores: Array, table: Table) -> dict[str, float | list[float]]:
    accuracy = table.accuracy
    generator = np.random.default_rng(0)
    draws = generator.integers(0, len(accuracy), (BOOTSTRAPS, len(accuracy)))
    taus = [kendalltau(scores[d], accuracy[d])[0] for d in draws]
    rhos = [spearmanr(scores[d], accuracy[d])[0] for d in draws]
    order = np.argsort([point.macs for point in table.points], kind="stable")
    inside = [kendalltau(scores[part], accuracy[part])[0] for part in np.array_split(order, BINS)]
    best = accuracy[np.argsort(-scores, kind="stable")[:TOP]].max()
    return {
        "tau": float(kendalltau(scores, accuracy)[0]),
        "tau_ci95": np.nanpercentile(taus, (2.5, 97.5)).tolist(),
        "rho": float(spearmanr(scores, accuracy)[0]),
        "rho_ci95": np.nanpercentile(rhos, (2.5, 97.5)).tolist(),
        "tau_equal_macs": float(np.nanmean(inside)),
        "top5_regret": float(accuracy.max() - best),
    }


def task(data: Path, inits: int, batch: int) -> ScoringTask:
    """Training images of CIFAR-100 and its trained teacher."""
    images = load_dataset(str(data / IMAGES)).train
    pick = np.sort(np.random.default_rng(0).choice(len(images), batch, replace=False))
    pixels = normalise(images.images[pick], *CIFAR100.values())
    return ScoringTask(teacher_of(data), pixels, torch.from_numpy(images.labels[pick]), 0, inits)


def large_task(given: ScoringTask) -> ScoringTask:
    """The same as the transformers see it: fewer images, enlarged; the teacher takes them at its own size."""
    return replace(
        given,
        teacher=replace(given.teacher, input_shape=VIT, resize=SHAPE[1]),
        images=F.interpolate(given.images[:VIT_BATCH], size=VIT[1:]),
        labels=given.labels[:VIT_BATCH],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--scorers", default=",".join(SCORERS))
    parser.add_argument("--inits", type=int, default=3)
    parser.add_argument("--sample", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--store", type=Path, help="keep the scores here")
    options = parser.parse_args()
    given = task(options.data, options.inits, options.batch)
    large = large_task(given)
    kept = Kept(options.store and options.store / f"inits-{options.inits}-batch-{options.batch}")
    for name in options.tables.split(","):
        table = TABLES[name](options.data, options.sample)
        rows = {"random": figures(np.random.default_rng(1).random(len(table.points)), table)}
        rows |= {key: figures(column, table) for key, column in table.baselines.items()}
        for key in options.scorers.split(","):
            values, seconds = score(key, table, given if table.image_size == 32 else large, kept)
            rows[key] = {**figures(values, table), "seconds": seconds}
            if key == "edgekd":
                rows |= calibrated(values, table)
        how = {"table": name, "networks": len(table.points), "inits": options.inits, "batch": options.batch}
        record("search_rank", {**how, "rows": rows})
        show(name, table, rows)


class Kept:
    """Scores by population and scorer: the next table may have the same networks, and so may the next run."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.found: dict[str, tuple[list[Score], float]] = {}

    def get(self, scorer: str, points: Sequence[Point], make: Callable[[], list[Score]]) -> tuple[list[Score], float]:
        """One score a point, and the seconds they took when they were made."""
        name = f"{scorer}-{fingerprint([str(point.genotype) for point in points])[:16]}"
        file = self.directory and self.directory / f"{name}.json"
        if name not in self.found and file and file.is_file():
            record = json.loads(file.read_text())
            self.found[name] = [Score(**score) for score in record["scores"]], record["seconds"]
        if name not in self.found:
            begun = time.perf_counter()
            scores = make()
            self.found[name] = scores, time.perf_counter() - begun
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                record = {"seconds": self.found[name][1], "scores": [asdict(score) for score in scores]}
                write_atomic(file, json.dumps(record).encode())
        return self.found[name]


def score(key: str, table: Table, given: ScoringTask, kept: Kept) -> tuple[Array, float]:
    """A value a network, what is not finite last, and seconds."""

    def scores() -> list[Score]:
        alive = [point for point in table.points if str(point.genotype) not in table.dead]
        scorer = find(SCORERS, "--scorers", key).load()(given)
        scorer.settle(alive)
        made = {str(point.genotype): scorer.score(point) for point in alive}
        return [made.get(str(point.genotype), Score(-math.inf)) for point in table.points]

    found, seconds = kept.get(key, table.points, scores)
    values = np.array([one.value for one in found])
    return np.where(np.isfinite(values), values, -np.inf), seconds


def calibrated(prior: Array, table: Table) -> dict[str, dict[str, Any]]:
    """What is gained by knowing some accuracies, on the networks whose accuracy is not known."""
    alive = np.flatnonzero(np.isfinite(prior))
    known = alive[choose(prior[alive].tolist(), LABELS)]
    rest = [int(i) for i in alive if i not in set(known.tolist())]
    measured = [int(np.flatnonzero(alive == i)[0]) for i in known]
    found = calibrate([table.points[i] for i in alive], prior[alive], measured, table.accuracy[known])
    after = np.full(len(prior), -np.inf)
    after[alive] = found.figures
    params = np.array([point.params for point in table.points], np.float64)
    columns = {f"edgekd, {LABELS} labels": after, "edgekd, the same": prior, "params, the same": params}
    rows: dict[str, dict[str, Any]] = {key: figures(column[rest], table.part(rest)) for key, column in columns.items()}
    rows[f"edgekd, {LABELS} labels"]["used"] = found.used
    return rows


def show(name: str, table: Table, rows: dict[str, dict[str, Any]]) -> None:
    print(f"\n{name}: {len(table.points)} networks")
    print(f"{'scorer':<18} {'tau':>6} {'95 %':>14} {'rho':>6} {'equal MACs':>11} {'regret':>7} {'seconds':>8}")
    for key, row in sorted(rows.items(), key=lambda item: -item[1]["tau"]):
        low, high = row["tau_ci95"]
        print(
            f"{key:<18} {row['tau']:6.3f} {low:6.3f} - {high:5.3f} {row['rho']:6.3f} {row['tau_equal_macs']:11.3f}"
            f" {row['top5_regret']:7.2f} {row.get('seconds', 0.0):8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
