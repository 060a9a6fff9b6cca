"""Space `nasbench201`: one cell of six edges, each one of five operations, fifteen times (Dong and Yang 2020).

A genotype is (operations), an operation for each of `edgekd.models.nasbench201.EDGES`. Many of the 15,625 cells are the
same network: edges that lead nowhere, skips that only rename a node, nodes in another order. Of those the one with the
fewest edges is the point, and what does not connect the input with the output is none.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from functools import cache, partial

from edgekd.artifacts import ModelSpec
from edgekd.errors import ConfigError
from edgekd.models.nasbench201 import CELLS, EDGES, WIDTHS, live_edges, write
from edgekd.profile.operators import Add, Conv, Layer, Network, NormHead, Pool, Relu, Sum
from edgekd.search.spaces import Gene, Genotype, Space

NONE, SKIP, POOL, CONV1, CONV3 = "none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3"
CHOICES = (NONE, SKIP, POOL, CONV1, CONV3)  # in order of cost
Operations = tuple[str, ...]


class NasBench201Space(Space):
    name = "nasbench201"
    genes = {"operations": Gene.alike(len(EDGES), *CHOICES)}
    named = {
        "resnet": Genotype(operations=(CONV3, NONE, NONE, SKIP, CONV3, NONE)),
        "largest": Genotype(operations=(CONV3,) * len(EDGES)),
    }

    def fit(self) -> None:
        c, h, w = self.input_shape
        if h % 4 or w % 4:
            raise ConfigError(
                f"search.space {self.name}: images of {h} x {w} cannot be halved twice",
                "Set image_size to a multiple of 4, or search.space to cifar-resnet.",
            )

    def canonical(self, genotype: Genotype) -> Genotype:
        return Genotype(operations=_representatives()[_network(genotype.operations)])

    def unsound(self, genotype: Genotype) -> str | None:
        return None if live_edges(genotype.operations) else "no operation connects the input with the output"

    def size(self) -> int:
        return len(_representatives()) - 1  # less the one that connects nothing

    def blocks(self, genotype: Genotype) -> list[int]:
        """Of every convolution in a row, along the longest path."""
        chain = {0: 0}
        for a, b in live_edges(genotype.operations):
            convolves = genotype.operations[EDGES.index((a, b))] in (CONV1, CONV3)
            chain[b] = max(chain.get(b, 0), chain[a] + convolves)
        cells = CELLS * chain.get(3, 0)
        return [WIDTHS[0], *(width for stage, width in enumerate(WIDTHS) for _ in range(cells + 2 * (stage > 0)))]

    def spec(self, genotype: Genotype) -> ModelSpec:
        kwargs = {"arch": write(genotype.operations)}
        return ModelSpec("edgekd", self.name, self.num_classes, self.input_shape, kwargs)

    def network(self, genotype: Genotype) -> Network:
        net = Network(self.input_shape)
        net.conv(WIDTHS[0], 3, relu=False)
        for stage, width in enumerate(WIDTHS):
            if stage:
                reduction(net, width)
            net.repeat(CELLS, partial(cell, operations=genotype.operations))
        c, h, w = net.out()
        net.add(NormHead(c, h, w, self.num_classes))
        return fuse(net)


def cell(net: Network, operations: Operations) -> None:
    """Every node the sum of its operations on the nodes before it."""
    nodes, rectified = {0: net.last}, dict[int, int]()
    c, h, w = net.out()
    for a, b in live_edges(operations):
        operation = operations[EDGES.index((a, b))]
        value = nodes[a]
        if operation == POOL:
            value = net.add(Pool("avg", c, 3, 1, 1, h, w), value)
        elif operation != SKIP:
            if value not in rectified:
                rectified[value] = net.add(Relu(c, h, w), value)
            value = net.conv(c, 1 if operation == CONV1 else 3, on=rectified[value], relu=False)
        nodes[b] = net.add(Sum((c, h, w)), nodes[b], value) if b in nodes else value


def reduction(net: Network, width: int) -> None:
    """conv(relu(conv(relu(x)))) at stride 2, plus a 1x1 convolution of means of four."""
    start, (c, h, w) = net.last, net.out()
    net.add(Relu(c, h, w))
    net.conv(width, 3, 2, relu=False)
    net.add(Relu(*net.out()))
    body = net.conv(width, 3, relu=False)
    net.add(Pool("avg", c, 2, 2, 0, h, w), start)
    shortcut = net.conv(width, 1, relu=False, affine=0)
    net.add(Sum(net.out()), shortcut, body)


def fuse(net: Network) -> Network:
    """Each ReLU as part of the convolution or sum before it, where both have one taker; the scheme fuses no other."""
    takers = Counter(place for _, inputs in net for place in inputs)
    fused, places = Network(net.input_shape), [0]
    for place, (op, inputs) in enumerate(net.layers[1:], 1):
        here = places[inputs[0]]
        before, sources = fused.layers[here]
        alone = takers[inputs[0]] == takers[place] == 1
        if alone and isinstance(op, Relu) and isinstance(before, Conv | Sum):
            rectified = replace(before, relu=True) if isinstance(before, Conv) else Add(*before.size)
            fused.layers[here] = Layer(rectified, sources)
        else:
            here = fused.add(op, *(places[source] for source in inputs))
        places.append(here)
    return fused


def _network(operations: Operations) -> tuple[object, ...]:
    """What tells networks apart: the output as a sum of operations on sums, and how many kernels there are."""
    live = live_edges(operations)
    nodes: dict[int, tuple[object, ...]] = {0: ("x",)}
    for node in (1, 2, 3):
        terms: list[object] = []
        for a, b in live:
            if b == node:
                operation = operations[EDGES.index((a, b))]
                terms += nodes[a] if operation == SKIP else [(operation, nodes[a])]
        nodes[node] = tuple(sorted(terms, key=repr))
    kernels = sorted(op for edge, op in zip(EDGES, operations, strict=True) if edge in live and op in (CONV1, CONV3))
    return nodes[3], tuple(kernels)


@cache
def _representatives() -> dict[tuple[object, ...], Operations]:
    """Of every network the cell with the fewest edges."""
    found: dict[tuple[object, ...], Operations] = {}
    cells = (cell[::-1] for cell in itertools.product(CHOICES, repeat=len(EDGES)))  # of equal ones, the first nodes
    for operations in sorted(cells, key=lambda cell: -cell.count(NONE)):
        found.setdefault(_network(operations), operations)
    return found
