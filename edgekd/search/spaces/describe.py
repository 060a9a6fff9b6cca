"""What a space holds, and whether a genotype is a point of it on a target: for people, and for scripts as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgekd.catalog import SPACES, find
from edgekd.profile.devices import list_devices, load_device
from edgekd.search.spaces import Space
from edgekd.search.spaces._rules import RULES


def describe(name: str) -> dict[str, Any]:
    """Genes with the choices of every position, named points with their cost, number of points, rules of each scheme.

    Costs are for the task the space is known for. Raises ConfigError for an unknown space.
    """
    row = find(SPACES, "space", name)
    space: Space = row.load()(row.classes, row.images)
    points = {key: space.point(genotype) for key, genotype in space.named.items()}
    return {
        "name": row.name,
        "summary": row.summary,
        "classes": row.classes,
        "images": list(row.images),
        "points": space.size(),
        "genes": {
            key: {"choices": [list(choices) for choices in gene.choices], "rising": gene.rising}
            for key, gene in space.genes.items()
        },
        "named": {
            key: {"genotype": str(point.genotype), "params": point.params, "macs": point.macs, "depth": point.depth}
            for key, point in points.items()
        },
        "rules": [
            {"scheme": scheme, "targets": [d.name for d in list_devices() if d.scheme == scheme], **asdict(rule)}
            for scheme, rules in RULES.items()
            for rule in rules
        ],
    }


def check(
    name: str,
    genotype: str,
    target: str | None = None,
    classes: int | None = None,
    images: tuple[int, int, int] | None = None,
) -> dict[str, Any]:
    """The cost of a point, named or written out. Raises ConfigError that says why where it is none on `target`.

    `classes` and `images` (C, H, W) are by default those of the task the space is known for.
    """
    row = find(SPACES, "space", name)
    device = load_device(target) if target is not None else None
    space: Space = row.load()(classes or row.classes, images or row.images, device)
    point = space.point(space.parse(genotype, "genotype"))
    return {
        "genotype": str(point.genotype),
        "target": target,
        "classes": space.num_classes,
        "images": list(space.input_shape),
        "params": point.params,
        "macs": point.macs,
        "depth": point.depth,
    }
