"""The distillation methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekd.catalog._row import Row


@dataclass(frozen=True)
class MethodRow(Row):
    family: str  # logit | feature | relation | token | policy
    paper: str
    needs: tuple[str, ...]  # of: labels features embeddings all_logits unlabelled live
    anchor: str  # a published result to compare with
    tasks: tuple[str, ...] = ("classification",)
    min_classes: int = 2
    owns_labels: bool = False  # returns the hard-label term `ce` itself; for the others the trainer adds it
    permutable: bool = True  # the loss does not depend on the order of a batch
    ships_extra: bool = False  # `export` returns more than the plain student

    @property
    def replayable(self) -> bool:
        """Whether stored teacher outputs, logits and embeddings, are enough."""
        return not {"features", "live"} & set(self.needs)

    def line(self) -> dict[str, Any]:
        """What a table of methods says of it."""
        return {
            "name": self.name,
            "family": self.family,
            "needs": self.needs,
            "replay": self.replayable,
            "owns_labels": self.owns_labels,
            "anchor": self.anchor,
            "paper": self.paper,
        }


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
            owns_labels=True,
        ),
        MethodRow(
            "kd",
            "edgekd.distill.methods.kd:KD",
            "softened KL to the teacher plus cross-entropy; zscore standardises logits first",
            family="logit",
            paper="Hinton et al. 2015; Sun et al. 2024 (z-score)",
            needs=("labels",),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 70.66",
            owns_labels=True,
        ),
    )
}
