"""What can be named in a config: plain frozen rows with import strings, so that listing them imports nothing heavy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from edgekd.errors import ConfigError


@dataclass(frozen=True)
class Row:
    name: str
    target: str  # "module:attribute"
    summary: str

    def load(self) -> Any:
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


@dataclass(frozen=True)
class MethodRow(Row):
    family: str  # logit | feature | relation | token | policy
    paper: str
    needs: tuple[str, ...]  # of: labels features embeddings unlabelled live
    anchor: str  # a published result to compare with
    tasks: tuple[str, ...] = ("classification",)
    min_classes: int = 2

    @property
    def replayable(self) -> bool:
        return not {"features", "live"} & set(self.needs)


@dataclass(frozen=True)
class ScorerRow(Row):
    paper: str
    needs: tuple[str, ...]  # of: teacher images labels
    cost: str


@dataclass(frozen=True)
class SpaceRow(Row):
    points: str


@dataclass(frozen=True)
class BackendRow(Row):
    runtime: str


@dataclass(frozen=True)
class SchemeRow(Row):
    activations: str
    runtime: str


METHODS = {
    row.name: row
    for row in (
        MethodRow(
            "ce",
            "edgekd.distill.methods.ce:CrossEntropy",
            "plain cross-entropy, no teacher: the baseline",
            family="logit",
            paper="-",
            needs=("labels",),
            anchor="CIFAR-100 ResNet-20: 69.06",
        ),
        MethodRow(
            "kd",
            "edgekd.distill.methods.kd:KD",
            "softened KL to the teacher plus cross-entropy; zscore standardises logits first",
            family="logit",
            paper="Hinton et al. 2015; Sun et al. 2024 (z-score)",
            needs=("labels",),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 70.66",
        ),
    )
}

SCORERS = {
    row.name: row
    for row in (
        ScorerRow(
            "diswot",
            "edgekd.search.scorers.diswot:DisWOT",
            "semantic plus relation similarity of a random teacher and student",
            paper="Dong et al. CVPR 2023",
            needs=("teacher", "images", "labels"),
            cost="one forward per initialisation",
        ),
        ScorerRow(
            "capacity",
            "edgekd.search.scorers.capacity:Capacity",
            "0.6 log params + 0.4 log MACs",
            paper="-",
            needs=(),
            cost="none",
        ),
        ScorerRow(
            "params",
            "edgekd.search.scorers.params:Params",
            "log of the parameter count",
            paper="-",
            needs=(),
            cost="none",
        ),
        ScorerRow(
            "macs",
            "edgekd.search.scorers.macs:Macs",
            "log of the multiply-accumulates",
            paper="-",
            needs=(),
            cost="none",
        ),
        ScorerRow(
            "depth",
            "edgekd.search.scorers.depth:Depth",
            "log of the number of blocks",
            paper="-",
            needs=(),
            cost="none",
        ),
        ScorerRow(
            "cka",
            "edgekd.search.scorers.cka:Cka",
            "linear CKA of a random student's embeddings to the trained teacher's",
            paper="Kornblith et al. ICML 2019",
            needs=("teacher", "images"),
            cost="one forward per initialisation",
        ),
        ScorerRow(
            "grad_norm",
            "edgekd.search.scorers.grad_norm:GradNorm",
            "norms of the loss gradients",
            paper="Abdelfattah et al. ICLR 2021",
            needs=("images", "labels"),
            cost="one backward per initialisation",
        ),
        ScorerRow(
            "snip",
            "edgekd.search.scorers.snip:Snip",
            "weight times gradient, absolute",
            paper="Lee et al. ICLR 2019",
            needs=("images", "labels"),
            cost="one backward per initialisation",
        ),
        ScorerRow(
            "grasp",
            "edgekd.search.scorers.grasp:Grasp",
            "weight times Hessian times gradient",
            paper="Wang et al. ICLR 2020",
            needs=("images", "labels"),
            cost="two backwards per initialisation",
        ),
        ScorerRow(
            "fisher",
            "edgekd.search.scorers.fisher:Fisher",
            "activation times gradient, squared",
            paper="Theis et al. 2018; Turner et al. ICLR 2020",
            needs=("images", "labels"),
            cost="one backward per initialisation",
        ),
        ScorerRow(
            "synflow",
            "edgekd.search.scorers.synflow:Synflow",
            "path norm of the absolute weights",
            paper="Tanaka et al. NeurIPS 2020",
            needs=(),
            cost="one backward per initialisation",
        ),
        ScorerRow(
            "naswot",
            "edgekd.search.scorers.naswot:Naswot",
            "how many images the ReLU codes tell apart",
            paper="Mellor et al. ICML 2021",
            needs=("images",),
            cost="one forward per initialisation",
        ),
        ScorerRow(
            "jacov",
            "edgekd.search.scorers.jacov:Jacov",
            "how uncorrelated the input Jacobians are",
            paper="Mellor et al. 2020",
            needs=("images",),
            cost="one backward per initialisation",
        ),
        ScorerRow(
            "zen",
            "edgekd.search.scorers.zen:Zen",
            "sensitivity of the last feature map to a Gaussian input",
            paper="Lin et al. ICCV 2021",
            needs=(),
            cost="two forwards per initialisation",
        ),
        ScorerRow(
            "zico",
            "edgekd.search.scorers.zico:Zico",
            "mean over deviation of gradients across batches",
            paper="Li et al. ICLR 2023",
            needs=("images", "labels"),
            cost="four small backwards per initialisation",
        ),
        ScorerRow(
            "az_expressivity",
            "edgekd.search.scorers.az:Expressivity",
            "entropy of the blocks' feature spectra",
            paper="Lee and Ham CVPR 2024",
            needs=(),
            cost="one forward per initialisation",
        ),
        ScorerRow(
            "az_progressivity",
            "edgekd.search.scorers.az:Progressivity",
            "smallest growth of that entropy between blocks",
            paper="Lee and Ham CVPR 2024",
            needs=(),
            cost="one forward per initialisation",
        ),
        ScorerRow(
            "az_trainability",
            "edgekd.search.scorers.az:Trainability",
            "how near to 1 the blocks' backward maps are",
            paper="Lee and Ham CVPR 2024",
            needs=(),
            cost="one backward per initialisation",
        ),
    )
}

SPACES = {
    row.name: row
    for row in (
        SpaceRow(
            "cifar-resnet",
            "edgekd.search.spaces.cifar_resnet:CifarResNetSpace",
            "three stages of basic blocks, 3x3 kernels; ResNet-8/20/56 are points of it",
            points="depth 1-9 per stage, widths in multiples of 8",
        ),
    )
}

BACKENDS = {
    row.name: row
    for row in (
        BackendRow(
            "onnxruntime-cpu", "edgekd.profile.backends.ort_cpu:OrtCpu", "ONNX Runtime on the processor", "onnxruntime"
        ),
    )
}

SCHEMES = {
    row.name: row
    for row in (
        SchemeRow(
            "ort",
            "edgekd.quantize.schemes.ort:OrtQuantizer",
            "ONNX Runtime on CPUs: Q/DQ on every conv, linear and add output after its ReLU",
            activations="uint8 affine per tensor",
            runtime="onnxruntime",
        ),
    )
}

R = TypeVar("R", bound=Row)


def find(rows: Mapping[str, R], field: str, name: str) -> R:
    """The row called `name`; ConfigError names `field` and the nearest names otherwise."""
    if name in rows:
        return rows[name]
    near = difflib.get_close_matches(name, rows, n=3) or sorted(rows)
    raise ConfigError(f"{field}: unknown name {name!r}", f"Known: {', '.join(near)}.")
