"""What operators hold, worked out by hand, and how a network is put together from them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from edgekd.profile.operators import (
    Add,
    Conv,
    Head,
    Input,
    Layer,
    Network,
    NormHead,
    Pool,
    SqueezeExcite,
    Sum,
    operators,
)
from edgekd.profile.token_operators import Attention, Gelu, LayerNorm, Linear, Patches, TokenHead, TokenPool
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace


@pytest.mark.parametrize(
    ("op", "out", "params", "macs"),
    [
        (Conv(4, 6, 3, 2, 9, 8), (6, 5, 4), 4 * 6 * 9 + 2 * 6, 4 * 6 * 9 * 20),
        (Conv(4, 4, 5, 1, 9, 8, groups=4, affine=1), (4, 9, 8), 4 * 25 + 4, 4 * 25 * 72),
        (Conv(4, 6, 1, 1, 2, 2, affine=0), (6, 2, 2), 24, 24 * 4),
        (Pool("max", 4, 3, 2, 1, 9, 8), (4, 5, 4), 0, 0),
        (Pool("avg", 4, 2, 2, 0, 9, 8), (4, 4, 4), 0, 0),
        (SqueezeExcite(8, 2, 5, 5), (8, 5, 5), 8 * 2 + 2 + 2 * 8 + 8, 32),
        (Head(8, 4, 4, 10), (10,), 90, 80),
        (NormHead(8, 4, 4, 10), (10,), 90 + 16, 80),
        (Patches(3, 8, 4, 4, 8, 8), (5, 8), 3 * 8 * 16 + 8 + 8 + 5 * 8, 3 * 8 * 16 * 4),
        (Patches(3, 8, 4, 2, 8, 8, placed=False), (10, 8), 3 * 8 * 16 + 8 + 8 + 9 * 8, 3 * 8 * 16 * 9),
        (Linear(5, 8, 6), (5, 6), 54, 240),
        (LayerNorm(5, 8), (5, 8), 16, 0),
        (Gelu(5, 8), (5, 8), 0, 0),
        (Attention(5, 2, 4), (5, 8), 0, 2 * 5 * 5 * 8),  # q k^T and its product with v, two heads of four channels
        (TokenPool(4, 8, 3, 3), (5, 8), (8 * 9 + 8) + (4 * 8 + 8), 8 * 9 * 4 + 32),
        (TokenHead(5, 8, 10), (10,), 16 + 90, 80),
    ],
)
def test_shapes_and_counts(op: Any, out: tuple[int, ...], params: int, macs: int) -> None:
    assert (op.out, op.params, op.macs) == (out, params, macs)


@pytest.mark.parametrize(
    ("op", "family", "traffic"),
    [
        (Conv(4, 6, 3, 2, 9, 8), "Conv 3x3", 4 * 72 + 6 * 20 + 4 * 6 * 9),
        (Conv(4, 4, 5, 1, 9, 8, groups=4), "Conv 5x5 grouped", 2 * 4 * 72 + 4 * 25),
        (Add(4, 9, 8), "Add", 3 * 4 * 72),
        (Sum((5, 8)), "Sum", 3 * 40),
        (Pool("max", 4, 3, 2, 1, 9, 8), "Pool max", 4 * 72 + 4 * 20),
        (SqueezeExcite(8, 2, 5, 5), "SqueezeExcite", 2 * 200 + 32),
        (Head(8, 4, 4, 10), "Head", 128 + 10 + 80),
        (Linear(5, 8, 6), "Linear", 40 + 30 + 48),
        (TokenPool(4, 8, 3, 3), "TokenPool", 40 + 40 + 8 * 9 + 4 * 8),
    ],
)
def test_what_a_latency_model_goes_by(op: Any, family: str, traffic: int) -> None:
    assert (op.family, op.traffic) == (family, traffic)


def test_the_latency_tables_key_of_an_operator_stays() -> None:
    """What was measured once is found by these texts; what trains beside a kernel does not change its time."""
    text = "Conv(c_in=16, c_out=24, kernel=3, stride=2, h=8, w=8, relu=True, groups=1)"
    assert repr(Conv(16, 24, 3, 2, 8, 8)) == repr(Conv(16, 24, 3, 2, 8, 8, affine=0)) == text
    assert Conv(16, 24, 3, 2, 8, 8) == Conv(16, 24, 3, 2, 8, 8, affine=0)
    assert repr(Add(16, 8, 8)) == "Add(c=16, h=8, w=8)"
    assert NormHead(8, 4, 4, 10) != Head(8, 4, 4, 10)


def test_a_network_is_a_list_of_operators() -> None:
    space = CifarResNetSpace(10, (3, 32, 32))
    kinds = Counter(type(op).__name__ for op in operators(space.network(space.named["resnet20"])))
    assert kinds == {"Input": 1, "Conv": 21, "Add": 9, "Head": 1}  # ResNet-20 and two 1x1 shortcuts
    net = Network((3, 9, 9))
    net.add(Head(3, 9, 9, 2))
    assert operators(net) == [Input(3, 9, 9), Head(3, 9, 9, 2)] and net.layers[1].inputs == (0,)


def test_a_block_is_repeated_on_the_output_of_the_one_before() -> None:
    def block(net: Network) -> None:
        start = net.last
        net.add(Add(4, 8, 8), start, net.conv(4, 3, relu=False))

    net = Network((4, 8, 8))
    net.repeat(3, block)
    conv, add = Conv(4, 4, 3, 1, 8, 8, relu=False), Add(4, 8, 8)
    expected = [(conv, (0,)), (add, (0, 1)), (conv, (2,)), (add, (2, 3)), (conv, (4,)), (add, (4, 5))]
    assert net.layers[1:] == [Layer(op, inputs) for op, inputs in expected]
    net.repeat(0, block)
    assert len(net) == 7
