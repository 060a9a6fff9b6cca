"""The training-free scorers."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.catalog._row import Row


@dataclass(frozen=True)
class ScorerRow(Row):
    paper: str
    needs: tuple[str, ...]  # of: teacher images labels
    cost: str


SCORERS = {
    row.name: row
    for row in (
        ScorerRow(
            "edgekd",
            "edgekd.search.scorers.edgekd:Edgekd",
            "params, macs, expressivity and width, and jacov where the space supports it, by log rank",
            paper="aggregation: Lee and Ham CVPR 2024",
            needs=("images",),
            cost="none; one backward per initialisation where the space supports jacov",
        ),
        ScorerRow(
            "diswot",
            "edgekd.search.scorers.diswot:DisWOT",
            "semantic plus relation similarity of a random teacher and student",
            paper="Dong et al. CVPR 2023",
            needs=("teacher", "images", "labels"),
            cost="one forward per initialisation",
        ),
        ScorerRow(
            "diswot_trained",
            "edgekd.search.scorers.diswot:TrainedDisWOT",
            "semantic plus relation similarity of the trained teacher and a random student",
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
            "expressivity",
            "edgekd.search.scorers.expressivity:Expressivity",
            "log of the sum over blocks of log channels",
            paper="-",
            needs=(),
            cost="none",
        ),
        ScorerRow(
            "width",
            "edgekd.search.scorers.width:Width",
            "mean over blocks of log channels",
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
            "sqnr",
            "edgekd.search.scorers.sqnr:Sqnr",
            "how little of the logits is rounding error in INT8",
            paper="-",
            needs=("images",),
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
