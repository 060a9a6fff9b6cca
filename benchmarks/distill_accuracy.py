"""Methods side by side by the short protocol: ResNet-56 to ResNet-20 on the first 20,000 training images of CIFAR-100.

    python benchmarks/distill_accuracy.py DATA [--methods kd,dkd] [--seeds 0] [--epochs 20] [--count 20000]
                                          [--store DIR]

20 epochs, no validation split, the last epoch on all 10,000 test images. Every method sees the same views of an image,
one an epoch; the teacher's outputs are stored once where they serve. Each run appends its line, and a run whose line is
there already is left out, so the script goes on where it was cut.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from _cifar100 import CIFAR100, SHAPE, short, teacher_of, trained_top1
from _record import lines, record

from edgekd.artifacts import ModelSpec
from edgekd.config import DistillConfig

STUDENT = ModelSpec("edgekd", "resnet20", 100, SHAPE, {"shortcut": "B"}, **CIFAR100)
CHOICES: dict[str, Any] = {  # what a published table means by the name
    "plain": "ce",
    "kd": "kd",
    "kd z-score": {"kd": {"zscore": True}},
    "dkd": {"dkd": {"beta": 2.0}},  # the authors' for this pair
    "dist": "dist",
    "crd": ["crd"],
    "reviewkd": "reviewkd",
    "rkd": "rkd",
    "at": "at",
    "simkd": "simkd",
}


def done() -> set[tuple[str, int, int, int]]:
    rows = [(line["figures"], line["seed"]) for line in lines("distill_accuracy")]
    return {(figures["method"], seed, figures["epochs"], figures["images"]) for figures, seed in rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", default=",".join(CHOICES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--store", type=Path, help="keep the teacher's outputs, and runs that are cut, here")
    options = parser.parse_args()
    data = short(options.data, options.count)
    teacher = teacher_of(options.data)
    finished = done()
    with tempfile.TemporaryDirectory() as directory:
        store = options.store or Path(directory)
        for seed in map(int, options.seeds.split(",")):
            for name in options.methods.split(","):
                if (name, seed, options.epochs, options.count) in finished:
                    continue
                choice = CHOICES.get(name, name)
                targets, work = str(store / "targets"), store / f"{name}-{seed}".replace(" ", "-")
                config = DistillConfig(epochs=options.epochs, views=options.epochs, method=choice, store=targets)
                accuracy, stage = trained_top1(teacher, STUDENT, data, config, seed, work)
                figures = {
                    "method": name,
                    "top1": accuracy,
                    "epochs": options.epochs,
                    "images": options.count,
                    "seconds": stage["seconds"],
                    "targets": stage.get("targets"),
                }
                record("distill_accuracy", figures, seed)
                print(f"{name:<12} seed {seed}  {accuracy:.2%}  {stage['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
