"""The default scorer against training: students of `cifar-resnet` at one measured latency, all distilled alike.

    python benchmarks/search_students.py DATA [--others 10] [--seed 0] [--epochs 20] [--count 20000] [--store DIR]

ResNet-20 sets the latency: the p50 of its INT8 graph at batch 1 on one thread of this machine. The second student is
the one the search chooses at that latency; the others are drawn at random from those within 5 %, whole graphs measured.
Each is distilled from the CIFAR-100 ResNet-56 by the short protocol (the first 20,000 training images, 20 epochs, the
last one on all 10,000 test images). The choice of students and every run append a line, and a second call goes on where
the first was cut. At the end: Kendall's tau of the scorer, of params and of MACs with the accuracies.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _cifar100 import CIFAR100, SHAPE, short, teacher_of, trained_top1
from _record import lines, record
from scipy.stats import kendalltau

from edgekd.artifacts import ModelSpec
from edgekd.config import DistillConfig, SearchConfig
from edgekd.data import Dataset
from edgekd.profile.devices import load_device
from edgekd.progress import NullProgress
from edgekd.search import search
from edgekd.search.explain import explain
from edgekd.search.latency import MeasuredLatency
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace

NEAR = 0.05
BOOTSTRAPS = 2000


def select(teacher: ModelSpec, data: Dataset, others: int, seed: int) -> list[dict[str, Any]]:
    """ResNet-20, the search's choice and random ones of the same latency, each with the score the search gives it."""
    device, config = load_device("x86-cpu"), SearchConfig()
    space = CifarResNetSpace(100, SHAPE, device)
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory, MeasuredLatency(space, device) as costs:
        base = space.named["resnet20"]
        limit = costs.measure(base)
        given: dict[str, Any] = {"teacher": teacher, "data": data, "device": device, "config": config, "seed": seed}
        latency = f"{limit * (1 + NEAR):.4f}ms"
        spec = search(Path(directory), **given, latency=latency, progress=NullProgress(), costs=costs)
        chosen = json.loads((Path(directory) / "search.json").read_text())["chosen"]
        assert ModelSpec.from_json(chosen["spec"]) == spec
        picked: dict[Genotype, str] = {base: "resnet20", space.parse(chosen["name"]): "chosen"}
        while len(picked) < others + 2:
            genotype = space.sample(generator)
            if abs(costs.predict(genotype) / limit - 1) <= NEAR and abs(costs.measure(genotype) / limit - 1) <= NEAR:
                picked.setdefault(genotype, "random")
        students = []
        for genotype, why in picked.items():
            found = explain(Path(directory), str(genotype), **given, costs=costs)
            entry = {"student": str(genotype), "why": why, "latency_ms": costs.measure(genotype)}
            students.append({**entry, **{key: found[key] for key in ("params", "macs", "score")}})
    return students


def tau(values: list[float], accuracy: list[float]) -> tuple[float, list[float]]:
    """Kendall's tau, and its 95 % bootstrap interval."""
    one, two = np.array(values), np.array(accuracy)
    draws = np.random.default_rng(0).integers(0, len(one), (BOOTSTRAPS, len(one)))
    taus = [kendalltau(one[d], two[d])[0] for d in draws]
    return float(kendalltau(one, two)[0]), [float(x) for x in np.nanpercentile(taus, (2.5, 97.5))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--others", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--store", type=Path, help="keep the teacher's outputs, and runs that are cut, here")
    options = parser.parse_args()
    protocol = {"epochs": options.epochs, "images": options.count}
    data, teacher = short(options.data, options.count), teacher_of(options.data)
    before = [line["figures"] for line in lines("search_students")]
    selections = [line["students"] for line in before if "students" in line]
    if selections:
        students = selections[-1]
    else:
        students = select(teacher, data, options.others, options.seed)
        record("search_students", {"students": students}, options.seed)
    finished = {
        line["student"]: line["top1"]
        for line in before
        if "top1" in line and {key: line[key] for key in protocol} == protocol
    }
    space = CifarResNetSpace(100, SHAPE)
    with tempfile.TemporaryDirectory() as directory:
        store = options.store or Path(directory)
        for row in students:
            if row["student"] not in finished:
                spec = replace(space.spec(space.parse(row["student"])), **CIFAR100)
                targets, work = str(store / "targets"), store / row["student"].replace(" ", "-")
                config = DistillConfig(epochs=options.epochs, views=options.epochs, store=targets)
                finished[row["student"]], stage = trained_top1(teacher, spec, data, config, options.seed, work)
                run = {**row, **protocol, "top1": finished[row["student"]], "seconds": stage["seconds"]}
                record("search_students", run, options.seed)
            print(f"{row['student']:<40} {row['why']:<9} {finished[row['student']]:.2%}", flush=True)
    accuracy = [finished[row["student"]] for row in students]
    taus = {key: tau([row[key] for row in students], accuracy) for key in ("score", "params", "macs")}
    for key, (value, (low, high)) in taus.items():
        print(f"tau of {key:<7} {value:6.3f}  ({low:.3f} - {high:.3f})")
    summary = {key: {"tau": value, "ci95": interval} for key, (value, interval) in taus.items()}
    record("search_students", {"tau": summary, "networks": len(students), **protocol}, options.seed)


if __name__ == "__main__":
    main()
