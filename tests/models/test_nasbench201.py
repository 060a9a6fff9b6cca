"""NAS-Bench-201: the published parameter count, cells by hand, and what a compiler would cut off."""

from __future__ import annotations

import pytest
import torch

from edgekd.errors import ModelError
from edgekd.models.nasbench201 import Cell, NasBench201, live_edges, parse, write

CONV = "nor_conv_3x3"


def cell(*operations: str) -> Cell:
    return Cell(operations, 16).eval()


def test_text_goes_both_ways() -> None:
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|skip_connect~1|nor_conv_3x3~2|"
    assert write(parse(text)) == text
    for broken in (text[:-1], text.replace("none", "max_pool"), ""):
        with pytest.raises(ModelError, match="not a NAS-Bench-201 cell"):
            parse(broken)


def test_the_largest_network_has_the_published_parameters() -> None:
    net = NasBench201(10, write((CONV,) * 6))
    assert sum(p.numel() for p in net.parameters()) == 1_531_546
    assert net.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert len(net.blocks) == 17


def test_nodes_are_sums() -> None:
    x = torch.randn(2, 16, 8, 8)
    skips = cell(*["skip_connect"] * 6)
    # node 1 = x, node 2 = x + node 1 = 2x, node 3 = x + node 1 + node 2 = 4x
    assert torch.allclose(skips(x), 4 * x)
    pooled = cell("none", "none", "none", "avg_pool_3x3", "none", "none")(torch.ones(1, 16, 4, 4))
    assert torch.equal(pooled, torch.ones(1, 16, 4, 4))  # the border's mean counts no padding


def test_what_does_not_lead_to_the_output_is_not_built() -> None:
    assert live_edges((CONV, "none", CONV, CONV, "none", "none")) == ((0, 3),)
    assert live_edges(("none", CONV, CONV, "none", CONV, "none")) == ()
    assert live_edges(("none", CONV, CONV, "none", CONV, CONV)) == ((0, 2), (2, 3))
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(cell(*["none"] * 6)(x), torch.zeros_like(x))
