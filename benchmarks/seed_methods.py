"""The methods of the founding papers, each in the setting that it is for, beside plain training and kd.

    python benchmarks/seed_methods.py DATA [--only GROUP,GROUP] [--methods kd,dho] [--seeds 0] [--epochs 20]
                                      [--count 20000] [--store DIR]

DATA holds the CIFAR archives and `teachers/`. A group is a setting: students of one group see equally many images, and
their accuracy is that of the last epoch on all 10,000 test images. Every run appends its line; one whose line is there
is left out, so the script goes on where it was cut. A method that is not in the catalogue is left out, with a word.

    cifar100   ResNet-56 to ResNet-20 on the first COUNT training images; plain and kd may have their lines in
               distill_accuracy.py, whose runs these are
    labels     CIFAR-10 with 1 % and 10 % of the labels; methods without a stream of unlabelled images take as many
               steps on the labelled ones
    classes    CIFAR-10 as animals and vehicles: two classes, a ResNet-32 trained on them, a ResNet-8 from it
    spaces     a CIFAR-100 teacher for CIFAR-10 with 10 % of the labels
    privacy    CIFAR-10 with 100 canaries, images of a random label, planted REPEATS times each: accuracy, and bits of
               exposure among 900 that are not planted. The teacher has learned them; risks are what it has memorised
               beyond a ResNet-20 that has not seen the canaries' labels
    aspects    as cifar100, beside its plain and kd, with the ten answers of a CIFAR-10 ResNet-56 to every image
    pool       a CIFAR-10 teacher and none of its images: the first COUNT of CIFAR-100 instead
    select     CIFAR-10 with 10 labels, and 100 more in each of 5 rounds: dho from scratch on all images, a quarter of
               the epochs a round; top-1 after the last round, and `rounds` after each; the 500 images that are watched
               choose how the two heads are mixed
    combinations  as cifar100, pairs of methods beside which their parts stand there

Weights of 4 bits are in four_bits.py.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _cifar100 import IMAGES, SHAPE, short, teacher_of, trained
from _record import lines, record
from distill_accuracy import STUDENT
from torch import nn

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.catalog import METHODS, STRATEGIES
from edgekd.config import DistillConfig, TeacherConfig, TrainConfig, method_choices
from edgekd.data import Dataset, Split
from edgekd.data.aspects import make_aspects
from edgekd.data.dataset import Labels
from edgekd.data.strategies import Pool, Rows
from edgekd.data.table import write_samples, write_table
from edgekd.distill import train_teacher
from edgekd.distill.privacy import cross_entropies, exposure, memorisation
from edgekd.export import export_fp32
from edgekd.models import build_model
from edgekd.progress import NullProgress
from edgekd.selection import WithEmbeddings
from edgekd.tasks.classification import predict_torch, top1

NAME = "seed_methods"
CIFAR10, CIFAR10_IMAGES = (
    {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "cifar10_train6bit_testexact.zip",
)
CIFAR10_TEACHERS = {"resnet20": "cifar10_resnet20-12fca82f.th", "resnet56": "cifar10_resnet56-4bfd9763.th"}
VEHICLES = {"airplane", "automobile", "ship", "truck"}
CANARIES, OTHERS, REPEATS = 100, 900, 8
BATCH = 128

CHOICES: dict[str, Any] = {
    "plain": "ce",
    "kd": "kd",
    "pld": "pld",
    "pld at T = 4": {"pld": {"temperature": 4.0}},  # its authors' for CIFAR-100
    "dhkd": "dhkd",
    "mixkd": "mixkd",
    "hard": "hard",
    "tgeo": "tgeo",
    "tgeo at T = 4": {"tgeo": {"temperature": 4.0}},  # kd's
    "kd + sinkd": ["kd", {"sinkd": 0.8}],
    "taid": "taid",
    "kd + trg": ["kd", "trg"],
    "talking": "talking",
    "kd + talking": ["kd", "talking"],
}
COMBINATIONS: dict[str, Any] = {
    "pld at T = 4 + dhkd": [{"pld": {"temperature": 4.0}}, "dhkd"],
    "dist + dhkd": ["dist", "dhkd"],
    "dist + 0.1 dhkd": ["dist", {"dhkd": 0.1}],
    "dkd at beta = 8 + dhkd": ["dkd", "dhkd"],
    "kd z-score + dhkd": [{"kd": {"zscore": True}}, "dhkd"],
    "kd + at": ["kd", "at"],
    "dist + at": ["dist", "at"],
    "reviewkd + dist": ["reviewkd", "dist"],
    "dist + trg": ["dist", "trg"],
    "dist + talking": ["dist", "talking"],
    "kd + sinkd + trg": ["kd", {"sinkd": 0.8}, "trg"],
    "taid + trg": ["taid", "trg"],
}
ROUNDS, QUERY = 5, 100


@dataclass(frozen=True)
class Run:
    """One line: `measure(seed)` gives its figures."""

    method: str
    choice: Any
    measure: Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Bench:
    """The data, the teachers and the budget of all groups."""

    directory: Path
    store: Path
    epochs: int
    count: int

    @cached_property
    def cifar100(self) -> Dataset:
        return short(self.directory, self.count)

    @cached_property
    def cifar10(self) -> Dataset:
        return short(self.directory, self.count, images=CIFAR10_IMAGES)

    def teacher10(self, name: str = "resnet56") -> ModelSpec:
        weights = str(self.directory / "teachers" / CIFAR10_TEACHERS[name])
        return ModelSpec("edgekd", name, 10, SHAPE, {"shortcut": "A"}, weights=weights, **CIFAR10)

    def config(self, **settings: Any) -> DistillConfig:
        return DistillConfig(**settings, store=str(self.store / "targets"))

    def home(self, name: str) -> Path:
        return self.store / f"{name}-{self.epochs}x{self.count}".replace(" ", "")

    def taught(self, name: str, data: Dataset, net: str) -> ModelSpec:
        """A teacher trained on `data`, once."""
        out = self.home(f"teacher-{name}")
        if not (out / "checkpoint.json").is_file():
            out.mkdir(parents=True, exist_ok=True)
            spec = ModelSpec("edgekd", net, data.num_classes, SHAPE, **CIFAR10)
            config = TeacherConfig(train=TrainConfig(epochs=self.epochs))
            train_teacher(out, spec=spec, data=data, config=config, seed=0, progress=NullProgress())
        checkpoint = Checkpoint.load(out)
        return replace(checkpoint.spec, weights=str(checkpoint.weights))

    def run(
        self,
        group: str,
        method: str,
        choice: Any,
        data: Dataset,
        teacher: ModelSpec,
        student: ModelSpec,
        judge: Callable[[nn.Module], dict[str, Any]] | None = None,
        **changes: Any,
    ) -> Run:
        """A student by `choice`; `judge` adds figures."""

        def measure(seed: int) -> dict[str, Any]:
            config = self.config(**{"epochs": self.epochs, "views": self.epochs, "method": choice, **changes})
            model, stage = trained(teacher, student, data, config, seed, self.home(f"{group}-{method}-{seed}"))
            logits = predict_torch(model, data.test.images, student.mean, student.std)
            figures = {"top1": top1(logits, data.test.labels), "seconds": stage["seconds"]}
            return figures | {"targets": stage.get("targets"), **({} if judge is None else judge(model))}

        return Run(method, choice, measure)


def student10(classes: int = 10, name: str = "resnet20") -> ModelSpec:
    return ModelSpec("edgekd", name, classes, SHAPE, {"shortcut": "B"}, **CIFAR10)


def cifar100(bench: Bench) -> Iterator[Run]:
    nets = (teacher_of(bench.directory), STUDENT)
    for method, choice in CHOICES.items():
        yield bench.run("cifar100", method, choice, bench.cifar100, *nets)
    # As many images as the others: a quarter of the epochs are those of the blocks.
    blocks = max(1, bench.epochs // 4)
    budget = {"blockwise": {"epochs": blocks}, "epochs": max(1, bench.epochs - blocks), "views": bench.epochs}
    yield bench.run("cifar100", "blockwise + kd", "kd", bench.cifar100, *nets, **budget)


def combinations(bench: Bench) -> Iterator[Run]:
    for method, choice in COMBINATIONS.items():
        yield bench.run("cifar100", method, choice, bench.cifar100, teacher_of(bench.directory), STUDENT)


def few(bench: Bench, share: float) -> tuple[Dataset, dict[str, Any]]:
    """Data and settings of a run that sees labelled images only: as many steps as on all images, in more epochs."""
    batch = min(BATCH, round(share * bench.count))
    epochs = bench.epochs * max(1, bench.count // BATCH) // max(1, round(share * bench.count) // batch)
    settings = {"labels": share, "epochs": epochs, "views": bench.epochs, "warmup_epochs": epochs / bench.epochs}
    data = replace(bench.cifar10, val=bench.cifar10.val[slice(50)])  # watched after every one of them
    return data, {**settings, "batch_size": batch}


def labels(bench: Bench) -> Iterator[Run]:
    nets = (bench.teacher10(), student10())
    for share in (0.01, 0.1):
        data, settings = few(bench, share)
        for method in ("plain", "kd"):
            yield bench.run("labels", f"{method} {share:.0%}", CHOICES[method], data, *nets, **settings)
        yield bench.run("labels", f"dho {share:.0%}", "dho", bench.cifar10, *nets, labels=share)


def classes(bench: Bench) -> Iterator[Run]:
    whole = bench.cifar10
    vehicle = np.array([name in VEHICLES for name in whole.classes]).astype(np.int64)
    train, val, test = (Split(s.images, vehicle[s.labels], s.ids) for s in (whole.train, whole.val, whole.test))
    data = replace(whole, classes=("animal", "vehicle"), train=train, val=val, test=test)
    teacher, student = bench.taught("classes", data, "resnet32"), student10(2, "resnet8")
    for method, choice in {"plain": "ce", "kd": "kd", "lelp": "lelp"}.items():
        yield bench.run("classes", method, choice, data, teacher, student)


def spaces(bench: Bench) -> Iterator[Run]:
    nets = (teacher_of(bench.directory), student10())
    data, settings = few(bench, 0.1)
    for method in ("plain", "mimic", "prockd"):
        yield bench.run("spaces", method, CHOICES.get(method, method), data, *nets, **settings)
    choice = {"prockd": {"unlabelled": True}}
    yield bench.run("spaces", "prockd, all images", choice, bench.cifar10, *nets, labels=0.1)


def privacy(bench: Bench) -> Iterator[Run]:
    whole, rng = short(bench.directory, bench.count, CANARIES + OTHERS, CIFAR10_IMAGES), np.random.default_rng(0)
    wrong = (whole.val.labels + rng.integers(1, 10, len(whole.val))) % 10  # of canaries, planted and not
    planted = Split(np.repeat(whole.val.images[:CANARIES], REPEATS, 0), np.repeat(wrong[:CANARIES], REPEATS))
    images = np.concatenate([whole.train.images, planted.images])
    data = replace(
        whole,
        train=Split(images, np.concatenate([whole.train.labels, planted.labels])),
        val=whole.val[slice(CANARIES, None)],
    )
    teacher, reference = bench.taught("privacy", data, "resnet32"), bench.teacher10("resnet20")

    def losses(model: nn.Module, spec: ModelSpec, pixels: Any, truth: Labels) -> Any:
        return cross_entropies(predict_torch(model, pixels, spec.mean, spec.std), truth)

    def leaks(model: nn.Module, spec: ModelSpec) -> float:
        found = losses(model, spec, whole.val.images, wrong)
        return float(exposure(found[:CANARIES], found[CANARIES:]).mean())

    of_teacher, of_reference = (
        losses(build_model(spec), spec, data.train.images, data.train.labels) for spec in (teacher, reference)
    )
    table = bench.home("risks").with_suffix(".npz")
    table.parent.mkdir(parents=True, exist_ok=True)
    risks = memorisation(of_teacher, of_reference).astype(np.float32)
    write_table(table, data.train.ids, {"risk": risks})
    student = student10()
    extra = {
        "teacher_exposure": leaks(build_model(teacher), teacher),
        "canary_risk": float(risks[-len(planted) :].mean()),
        "other_risk": float(risks[: -len(planted)].mean()),
    }
    for method, choice in {"plain": "ce", "kd": "kd", "swing": "swing"}.items():
        more = {"table": str(table)} if method == "swing" else {}
        yield bench.run(
            "privacy",
            method,
            choice,
            data,
            teacher,
            student,
            judge=lambda model: {"exposure": leaks(model, student), **extra},
            **more,
        )


def aspects(bench: Bench) -> Iterator[Run]:
    graph, table = bench.store / "cifar10-resnet56.onnx", bench.store / "aspects.npz"
    if not table.is_file():
        bench.store.mkdir(parents=True, exist_ok=True)
        spec = bench.teacher10()
        export_fp32(build_model(spec), graph, SHAPE, 17)
        make_aspects(
            str(bench.directory / IMAGES), graph, table, NullProgress(), softmax=True, mean=spec.mean, std=spec.std
        )
    for method, choice in {"makd": "makd", "kd + makd": ["kd", "makd"]}.items():
        nets = (teacher_of(bench.directory), STUDENT)
        yield bench.run("aspects", method, choice, bench.cifar100, *nets, table=str(table))


def pool(bench: Bench) -> Iterator[Run]:
    nets, images = (bench.teacher10(), student10()), bench.cifar100.train.images
    without = Split(images, np.zeros(len(images), np.int64))  # alpha 1: no label enters
    yield bench.run("pool", "kd", {"kd": {"alpha": 1.0}}, replace(bench.cifar10, train=without), *nets)
    file = bench.home("pool").with_suffix(".npz")
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, images=images, labels=bench.cifar100.train.labels)
    for method, options in {"kd3": {}, "kd3, all images": {"keep": 1.0}}.items():
        yield bench.run("pool", method, {"kd3": options}, bench.cifar10, *nets, unlabelled=str(file))


def selects(bench: Bench) -> Iterator[Run]:
    """Which to label: the first ten are one of every class, the same for all."""
    data, nets, epochs = bench.cifar10, (bench.teacher10(), student10()), max(1, bench.epochs // 4)

    def rounds(strategy: str, seed: int) -> dict[str, Any]:
        work = bench.home(f"select-{strategy}-{seed}")
        work.mkdir(parents=True, exist_ok=True)
        order = np.random.default_rng(seed).permutation(len(data.train))
        rows = order[np.unique(data.train.labels[order], return_index=True)[1]]
        found, seconds = [], 0.0
        for i in range(ROUNDS + 1):
            labelled = work / f"labelled-{i}.txt"
            write_samples(labelled, data.train.ids[rows])
            config = bench.config(epochs=epochs, views=epochs, method="dho", labels=str(labelled))
            model, stage = trained(*nets, data, config, seed, work / str(i))
            logits = predict_torch(model, data.test.images, nets[1].mean, nets[1].std)
            found.append(top1(logits, data.test.labels))
            seconds += stage["seconds"]
            if i < ROUNDS:
                rows = np.concatenate([rows, choose(strategy, model, rows, np.random.default_rng([seed, i]))])
        return {"top1": found[-1], "rounds": found, "labels": len(rows), "seconds": seconds}

    def choose(strategy: str, model: nn.Module, rows: Rows, rng: np.random.Generator) -> Rows:
        row, spec = STRATEGIES[strategy], nets[1]
        net = WithEmbeddings(model, SHAPE) if row.embeddings else model
        outputs = predict_torch(net, data.train.images, spec.mean, spec.std)
        p = torch.from_numpy(outputs[:, : data.num_classes]).softmax(1).numpy()
        h = outputs[:, data.num_classes :]
        left = np.setdiff1d(np.arange(len(data.train)), rows)
        chosen: Rows = left[row.load()(Pool(p[left], p[rows], h[left], h[rows]), QUERY, rng)]
        return chosen

    for strategy in STRATEGIES:
        yield Run(strategy, "dho", partial(rounds, strategy))


GROUPS: dict[str, Callable[[Bench], Iterator[Run]]] = {
    "cifar100": cifar100,
    "labels": labels,
    "classes": classes,
    "spaces": spaces,
    "privacy": privacy,
    "aspects": aspects,
    "pool": pool,
    "select": selects,
    "combinations": combinations,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default=",".join(GROUPS), help="groups")
    parser.add_argument("--methods", help="the others are left out")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--store", type=Path, help="keep teachers, their outputs, and runs that are cut, here")
    options = parser.parse_args()
    known = [line["figures"] | {"seed": line["seed"]} for line in lines(NAME)]
    known += [{**line["figures"], "seed": line["seed"], "group": "cifar100"} for line in lines("distill_accuracy")]
    finished = {tuple(row[key] for key in ("group", "method", "seed", "epochs", "images")) for row in known}
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(options.data, options.store or Path(directory), options.epochs, options.count)
        for group in options.only.split(","):
            for run in GROUPS[group](bench):
                missing = [c.name for c in method_choices(run.choice) if c.name not in METHODS]
                if missing:
                    print(f"{group} {run.method}: {missing[0]} is not in the catalogue, left out", flush=True)
                    continue
                if options.methods and run.method not in options.methods.split(","):
                    continue
                for seed in map(int, options.seeds.split(",")):
                    if (group, run.method, seed, options.epochs, options.count) in finished:
                        continue
                    own = {"group": group, "method": run.method, "epochs": options.epochs, "images": options.count}
                    figures = {**own, **run.measure(seed)}
                    record(NAME, figures, seed)
                    exposed = f"  exposure {figures['exposure']:.2f} bits" if "exposure" in figures else ""
                    print(f"{group:<9} {run.method:<30} seed {seed}  {figures['top1']:.2%}{exposed}", flush=True)


if __name__ == "__main__":
    main()
