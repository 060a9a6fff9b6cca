"""The distillation methods."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.catalog._row import Row


@dataclass(frozen=True)
class MethodRow(Row):
    family: str  # logit | feature | relation | token | policy
    paper: str
    needs: tuple[str, ...]  # of: labels features embeddings unlabelled live all_logits (not a table of the largest few)
    anchor: str  # a published result to compare with
    tasks: tuple[str, ...] = ("classification",)
    min_classes: int = 2
    owns_labels: bool = False  # gives the hard-label term, "ce"

    @property
    def replayable(self) -> bool:
        return not {"features", "live"} & set(self.needs)


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
            "softened KL to the teacher plus cross-entropy; zscore standardises logits first, the temperature may move",
            family="logit",
            paper="Hinton et al. 2015; Sun et al. 2024 (z-score)",
            needs=("labels",),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 70.66",
            owns_labels=True,
        ),
        MethodRow(
            "dkd",
            "edgekd.distill.methods.dkd:DKD",
            "KD with the target class and the other classes weighted apart",
            family="logit",
            paper="Zhao et al. 2022, arXiv 2203.08679",
            needs=("labels", "all_logits"),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 71.97",
            min_classes=3,
            owns_labels=True,
        ),
        MethodRow(
            "dist",
            "edgekd.distill.methods.dist:DIST",
            "correlation with the teacher within each image and within each class, free of scale",
            family="logit",
            paper="Huang et al. 2022, arXiv 2205.10536",
            needs=("labels", "all_logits"),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 71.75",
            owns_labels=True,
        ),
        MethodRow(
            "nkd",
            "edgekd.distill.methods.nkd:NKD",
            "label term weighted by the teacher's trust, other classes normalised to the same mass",
            family="logit",
            paper="Yang et al. 2023, arXiv 2303.13005",
            needs=("labels", "all_logits"),
            anchor="ImageNet ResNet-34 to ResNet-18: 71.96",
            min_classes=3,
            owns_labels=True,
        ),
        MethodRow(
            "ttm",
            "edgekd.distill.methods.ttm:TTM",
            "temperature on the teacher's side alone; weighted (WTTM) counts hesitant teachers more",
            family="logit",
            paper="Zheng and Yang 2024, arXiv 2402.11148",
            needs=("labels", "all_logits"),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 71.83, weighted 71.92",
            owns_labels=True,
        ),
        MethodRow(
            "mlkd",
            "edgekd.distill.methods.mlkd:MLKD",
            "images, pairs of images and pairs of classes matched at several temperatures",
            family="logit",
            paper="Jin et al. 2023, CVPR",
            needs=("labels", "all_logits"),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 72.19 (two views, 480 epochs)",
            owns_labels=True,
        ),
        MethodRow(
            "rld",
            "edgekd.distill.methods.rld:RLD",
            "the teacher's confidence, and its view of the classes that it ranks below the label",
            family="logit",
            paper="Sun et al. 2025, arXiv 2408.07703",
            needs=("labels", "all_logits"),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 72.00",
            min_classes=3,
            owns_labels=True,
        ),
        MethodRow(
            "wkd",
            "edgekd.distill.methods.wkd:WKD",
            "optimal transport between the two distributions, cheap between related classes (WKD-L)",
            family="logit",
            paper="Lv et al. 2024, arXiv 2412.08139",
            needs=("labels", "all_logits"),
            anchor="CIFAR-100 ResNet-32x4 to ResNet-8x4: 76.53",
            min_classes=3,
            owns_labels=True,
        ),
    )
}
