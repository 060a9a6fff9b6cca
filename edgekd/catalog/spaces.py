"""The student spaces."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.catalog._row import Row

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)


@dataclass(frozen=True)
class SpaceRow(Row):
    """`classes` and `images` (C, H, W) are of the task the space is known for; it takes others."""

    points: str
    classes: int
    images: tuple[int, int, int]


SPACES = {
    row.name: row
    for row in (
        SpaceRow(
            "cifar-resnet",
            "edgekd.search.spaces.cifar_resnet:CifarResNetSpace",
            "three stages of basic blocks, 3x3 kernels; ResNet-8/20/56 are points of it",
            points="depth 1-9 per stage, widths in multiples of 8",
            classes=10,
            images=CIFAR,
        ),
        SpaceRow(
            "resnet",
            "edgekd.search.spaces.resnet:ResNetSpace",
            "four stages of basic blocks or bottlenecks; ResNet-18/26/34/50 are points of it and load timm's weights",
            points="block, depth 1-6 per stage, widths of 2/8 to 8/8 of the published ones",
            classes=1000,
            images=IMAGENET,
        ),
        SpaceRow(
            "mobilenet",
            "edgekd.search.spaces.mobilenet:MobileNetSpace",
            "seven stages of inverted residuals with ReLU; MobileNetV2 is a point of it",
            points="stem, head; per stage depth 1-4, width, kernel 3/5, expansion 1/3/4/6, squeeze-excite",
            classes=1000,
            images=IMAGENET,
        ),
        SpaceRow(
            "nasbench201",
            "edgekd.search.spaces.nasbench201:NasBench201Space",
            "fifteen equal cells of four nodes, as benchmarked by NAS-Bench-201",
            points="one of 5 operations on each of 6 edges",
            classes=10,
            images=CIFAR,
        ),
        SpaceRow(
            "autoformer",
            "edgekd.search.spaces.autoformer:AutoFormerSpace",
            "vision transformers of AutoFormer's tiny space; DeiT-Ti is a point of it",
            points="width 192-240, depth 12-14, per block 3-4 heads and MLP ratio 3.5-4",
            classes=1000,
            images=IMAGENET,
        ),
        SpaceRow(
            "pit",
            "edgekd.search.spaces.pit:PiTSpace",
            "pooling vision transformers of three stages; PiT-Ti is a point of it",
            points="width of a head 16-40, MLP ratio 2-8, per stage depth and 2/4/8 heads",
            classes=1000,
            images=IMAGENET,
        ),
    )
}
