"""The distillation methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekd.catalog._row import Row

NEEDS = {  # what a method may ask for
    "labels": "the images' labels",
    "features": "tapped features of both networks",
    "student_features": "tapped features of the student",
    "embeddings": "embeddings of both networks",
    "student_embeddings": "embeddings of the student",
    "all_logits": "the teacher's logits of all classes",
    "live": "the teacher beside the student, on images that are new at every step",
    "network": "the teacher's network itself, which gradients pass through",
    "unlabelled": "a second stream of images without labels: distill.unlabelled or distill.labels",
    "pool": "other images in place of the training images, without labels: distill.unlabelled",
    "held_out": "a part of the training images that the student is not trained on",
    "table": "values of every training image: distill.table",
}


@dataclass(frozen=True)
class MethodRow(Row):
    family: str  # logit | feature | relation | token | policy
    paper: str
    needs: tuple[str, ...]  # of NEEDS
    anchor: str  # a published result to compare with
    tasks: tuple[str, ...] = ("classification",)
    min_classes: int = 2
    owns_labels: bool = False  # returns the hard-label term `ce` itself, or has no labels; else the trainer adds it
    permutable: bool = True  # the loss does not depend on the order of a batch
    teacher: bool = True  # whether it reads a teacher at all
    any_classes: bool = False  # no logits of the teacher are read: its classes may be others than the data's
    ships_extra: bool = False  # `export` returns more than the plain student
    top_logits: int = 0  # of an image's largest, how many stored targets must hold; of no matter with `all_logits`
    refuses: Mapping[str, str] = field(default_factory=dict)  # methods that it cannot be listed with, and why

    @property
    def replayable(self) -> bool:
        """Whether stored teacher outputs, logits and embeddings, are enough."""
        return not {"features", "live", "network"} & set(self.needs)

    def asks(self, whose: str) -> dict[str, Any]:
        """What `Tapped` is to give of the `student` or of the `teacher` beside its logits."""
        own = {"student": ("", "student_"), "teacher": ("",)}[whose]
        return {kind: any(f"{of}{kind}" in self.needs for of in own) for kind in ("features", "embeddings")}

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
            teacher=False,
            any_classes=True,
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
        MethodRow(
            "pld",
            "edgekd.distill.methods.pld:PLD",
            "rank the classes as the label and then the teacher do, in place of cross-entropy and KD",
            family="logit",
            paper="Bassam et al. 2025, arXiv 2506.12542",
            needs=("labels", "all_logits"),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 70.28 (250 epochs of AdamW)",
            owns_labels=True,
        ),
        MethodRow(
            "topkld",
            "edgekd.distill.methods.topkld:TopKLD",
            "forward KL on the teacher's first classes, reverse KL on the others; for students of few bits",
            family="logit",
            paper="Ding et al. 2025, arXiv 2501.06218 (reconstructed)",
            needs=("labels",),
            anchor="-",
            owns_labels=True,
        ),
        MethodRow(
            "dhkd",
            "edgekd.distill.methods.dhkd:DHKD",
            "a second head, dropped at export, regresses the teacher's logits",
            family="logit",
            paper="Yang et al. 2025, arXiv 2411.08937",
            needs=("student_embeddings", "all_logits"),
            anchor="-",
        ),
        MethodRow(
            "sinkd",
            "edgekd.distill.methods.sinkd:SinKD",
            "optimal transport between the two batches of predictions, beside another method",
            family="relation",
            paper="Cui et al. 2024, arXiv 2402.17110",
            needs=("all_logits",),
            anchor="-",
        ),
        MethodRow(
            "mixkd",
            "edgekd.distill.methods.mixkd:MixKD",
            "a few images mixed, logits of both sides divided by their deviation",
            family="policy",
            paper="Choi et al. 2023, arXiv 2211.03946",
            needs=("labels", "live"),
            anchor="-",
            min_classes=3,
            owns_labels=True,
            refuses={
                name: "which goes by one label an image, where mixed images have two" for name in ("crd", "ofakd")
            },
        ),
        MethodRow(
            "hard",
            "edgekd.distill.methods.hard:HARD",
            "augmentations learned to move the student's answer and not the teacher's",
            family="policy",
            paper="Nix et al. 2023, arXiv 2305.14890 (reconstructed)",
            needs=("labels", "live", "network"),
            anchor="-",
            owns_labels=True,
            refuses={"makd": "which has the answers of images as they are"},
        ),
        MethodRow(
            "makd",
            "edgekd.distill.methods.makd:MaKD",
            "answers of a large model to questions about each image, from a table, beside the classes",
            family="policy",
            paper="Lee et al. 2025, arXiv 2501.13341",
            needs=("labels", "student_embeddings", "table"),
            teacher=False,
            any_classes=True,
            anchor="Stanford Cars ResNet-18, no teacher: 77.53 to 83.38",
            refuses={"mixkd": "which mixes images, and makd has the answers of whole ones"},
        ),
        MethodRow(
            "tgeo",
            "edgekd.distill.methods.tgeo:TGeo",
            "how much each image trusts the teacher, learned through a step on held-out training images",
            family="policy",
            paper="Hu et al. 2024, arXiv 2312.15112",
            needs=("labels", "all_logits", "held_out"),
            anchor="-",
            owns_labels=True,
        ),
        MethodRow(
            "swing",
            "edgekd.distill.methods.swing:Swing",
            "private images are taught at a higher temperature and with noise; no differential privacy",
            family="logit",
            paper="Li et al. 2022, arXiv 2212.08349 (reconstructed)",
            needs=("labels", "all_logits", "table"),
            anchor="-",
            owns_labels=True,
        ),
        MethodRow(
            "taid",
            "edgekd.distill.methods.taid:TAID",
            "the teacher of another method starts at the student and moves away as it follows",
            family="policy",
            paper="Shing et al. 2025, arXiv 2501.16937",
            needs=("labels",),
            anchor="-",
            owns_labels=True,
        ),
        MethodRow(
            "fitnet",
            "edgekd.distill.methods.fitnet:FitNet",
            "regress the teacher's middle feature map",
            family="feature",
            paper="Romero et al. ICLR 2015",
            needs=("features",),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 69.21",
            any_classes=True,
        ),
        MethodRow(
            "at",
            "edgekd.distill.methods.at:AttentionTransfer",
            "match spatial attention, layer by layer",
            family="feature",
            paper="Zagoruyko and Komodakis ICLR 2017",
            needs=("features",),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 70.55",
            any_classes=True,
        ),
        MethodRow(
            "vid",
            "edgekd.distill.methods.vid:VariationalInformation",
            "maximise a bound on the information the layers share",
            family="feature",
            paper="Ahn et al. CVPR 2019",
            needs=("features",),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 70.38",
            any_classes=True,
        ),
        MethodRow(
            "ofd",
            "edgekd.distill.methods.ofd:OverhaulKD",
            "regress features before the ReLU by margin ReLU and partial distance",
            family="feature",
            paper="Heo et al. ICCV 2019",
            needs=("features",),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 70.98",
            any_classes=True,
        ),
        MethodRow(
            "reviewkd",
            "edgekd.distill.methods.reviewkd:ReviewKD",
            "review each teacher layer with the student's deeper layers",
            family="feature",
            paper="Chen et al. CVPR 2021",
            needs=("features", "embeddings"),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 71.89",
            any_classes=True,
        ),
        MethodRow(
            "cwd",
            "edgekd.distill.methods.cwd:ChannelWiseKD",
            "match each channel's distribution over positions",
            family="feature",
            paper="Shu et al. ICCV 2021",
            needs=("features",),
            anchor="Cityscapes PSPNet-R101 to PSPNet-R18: 75.54 mIoU",
            any_classes=True,
        ),
        MethodRow(
            "mgd",
            "edgekd.distill.methods.mgd:MaskedGeneration",
            "generate the teacher's features from the student's masked ones",
            family="feature",
            paper="Yang et al. ECCV 2022",
            needs=("features",),
            anchor="ImageNet ResNet-34 to ResNet-18: 71.69",
            any_classes=True,
        ),
        MethodRow(
            "simkd",
            "edgekd.distill.methods.simkd:SimKD",
            "feed the teacher's classifier through a projector; both ship",
            family="feature",
            paper="Chen et al. CVPR 2022",
            needs=("labels", "features", "embeddings"),
            anchor="CIFAR-100 ResNet-32x4 to ResNet-8x4: 78.08",
            owns_labels=True,
            ships_extra=True,
        ),
        MethodRow(
            "ofakd",
            "edgekd.distill.methods.ofakd:OneForAll",
            "exits of the student learn the teacher's logits: any two families",
            family="feature",
            paper="Hao et al. NeurIPS 2023",
            needs=("labels", "student_features"),
            anchor="CIFAR-100, unlike families: up to 8.0 points over the best baseline",
        ),
        MethodRow(
            "talking",
            "edgekd.distill.methods.talking:Talking",
            "the student's feature goes on through the teacher's upper layers to the task loss",
            family="feature",
            paper="Zhao et al. 2023, arXiv 2310.03188 (one round, reconstructed)",
            needs=("labels", "features", "network"),
            anchor="-",
        ),
        MethodRow(
            "prockd",
            "edgekd.distill.methods.prockd:ProCKD",
            "prototypes of what the teacher sees augment the student's features: any label space",
            family="feature",
            paper="Li et al. 2022, arXiv 2212.13180 (partly reconstructed)",
            needs=("labels", "features", "student_embeddings"),
            any_classes=True,
            anchor="-",
        ),
        MethodRow(
            "dho",
            "edgekd.distill.methods.dho:DHO",
            "a head for the few labels and a head for the teacher, mixed at inference; takes unlabelled images",
            family="logit",
            paper="Kang et al. 2025, arXiv 2505.07675",
            needs=("labels", "student_embeddings", "unlabelled"),
            anchor="ImageNet DFN ViT-H to ViT-B, 1 % of the labels: 81.6",
            owns_labels=True,
            ships_extra=True,
            refuses={
                name: "which goes by the label of every image, and dho has images without one"
                for name in ("crd", "ofakd")
            },
        ),
        MethodRow(
            "lelp",
            "edgekd.distill.methods.lelp:LELP",
            "classes split into pseudo-subclasses along the teacher's embeddings, folded at export; for few classes",
            family="logit",
            paper="Loo et al. 2024, arXiv 2409.20449 (partly reconstructed)",
            needs=("labels", "embeddings", "all_logits"),
            anchor="Sentiment140, 2 classes: 0.88 over the best baseline",
            owns_labels=True,
            ships_extra=True,
            refuses={
                name: "which trains the student's own head, and lelp ships another"
                for name in ("sinkd", "ofakd", "prockd")
            },
        ),
        MethodRow(
            "kd3",
            "edgekd.distill.methods.kd3:KD3",
            "no original data: the useful images of another pool, and the teacher's classifier for the student",
            family="feature",
            paper="Tang et al. ICCV 2023, arXiv 2307.11469 (reconstructed)",
            needs=("embeddings", "all_logits", "pool"),
            anchor="-",
            owns_labels=True,
            permutable=False,
            refuses={
                **{
                    name: "which learns from labels, and kd3 has none" for name in ("crd", "ofakd", "talking", "prockd")
                },
                "makd": "whose table is of the training images, which kd3 does not see",
                "sinkd": "which trains the student's own head, and kd3 sets it",
            },
        ),
        MethodRow(
            "mimic",
            "edgekd.distill.methods.mimic:Mimic",
            "regress the teacher's embedding by a linear layer",
            family="feature",
            paper="Romero et al. ICLR 2015; Yang et al. CVPR 2024 (CLIP-KD)",
            needs=("embeddings",),
            anchor="CC3M+12M CLIP ViT-B/16 to ViT-T/16, ImageNet zero-shot: 30.55 to 34.23",
            any_classes=True,
        ),
        MethodRow(
            "srrl",
            "edgekd.distill.methods.srrl:SoftmaxRegression",
            "the student's embedding through the teacher's classifier gives its logits",
            family="feature",
            paper="Yang et al. ICLR 2021",
            needs=("embeddings",),
            anchor="CIFAR-100 ResNet-32x4 to ResNet-8x4: 75.39",
        ),
        MethodRow(
            "crd",
            "edgekd.distill.methods.crd:ContrastiveKD",
            "tell pairs of one image from pairs of other classes, with memory banks",
            family="relation",
            paper="Tian et al. ICLR 2020",
            needs=("labels", "embeddings"),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 71.16",
            any_classes=True,
        ),
        MethodRow(
            "sp",
            "edgekd.distill.methods.sp:SimilarityPreserving",
            "keep which images of a batch look alike",
            family="relation",
            paper="Tung and Mori ICCV 2019",
            needs=("features",),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 69.67",
            any_classes=True,
        ),
        MethodRow(
            "rkd",
            "edgekd.distill.methods.rkd:RelationalKD",
            "keep distances and angles among a batch's embeddings",
            family="relation",
            paper="Park et al. CVPR 2019",
            needs=("embeddings",),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 69.61",
            any_classes=True,
        ),
        MethodRow(
            "pkt",
            "edgekd.distill.methods.pkt:ProbabilisticTransfer",
            "match who is whose neighbour among a batch's embeddings",
            family="relation",
            paper="Passalis and Tefas ECCV 2018",
            needs=("embeddings",),
            anchor="CIFAR-100 ResNet-56 to ResNet-20: 70.34",
            any_classes=True,
        ),
        MethodRow(
            "trg",
            "edgekd.distill.methods.trg:TRG",
            "keep how tokens relate: within an image, among nearest neighbours, and to their own of the teacher",
            family="relation",
            paper="Zhang et al. 2023, arXiv 2306.12442 (reconstructed)",
            needs=("features",),
            anchor="-",
            any_classes=True,
        ),
        MethodRow(
            "token",
            "edgekd.distill.methods.token:DistillationToken",
            "a distillation token learns the teacher, hard or soft; for distilled transformers",
            family="token",
            paper="Touvron et al. ICML 2021 (DeiT)",
            needs=("labels", "student_embeddings"),
            anchor="ImageNet DeiT-Ti: 72.2 to 74.5",
            owns_labels=True,
        ),
    )
}
