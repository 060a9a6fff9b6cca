"""The student spaces."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.catalog._row import Row


@dataclass(frozen=True)
class SpaceRow(Row):
    points: str


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
