"""Muon: orthogonal steps on kernels, Adam's on vectors, and a state that can be put back."""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgekd.distill.muon import Muon, orthogonalise


def groups(net: nn.Module, weight_decay: float = 0.0) -> list[dict[str, object]]:
    parameters = list(net.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim == 1]},
    ]


def test_singular_values_come_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in [(8, 72), (72, 8), (16, 16)]:
        matrix = torch.randn(shape, generator=generator)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        result = orthogonalise(matrix)
        assert result.shape == matrix.shape
        values = torch.linalg.svdvals(result)
        assert 0.3 < values.min() and values.max() < 1.3
        cosine = torch.sum(result * (u @ v)) / result.norm() / (u @ v).norm()
        assert cosine > 0.97, shape


def test_first_step_of_a_kernel_and_of_a_vector() -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(4, 6, 3)
    before = copy.deepcopy(net)
    optimizer = Muon(groups(net, weight_decay=0.5), lr=0.1)
    net(torch.randn(2, 4, 8, 8)).square().mean().backward()
    assert net.weight.grad is not None and net.bias is not None and net.bias.grad is not None
    optimizer.step()
    assert before.bias is not None
    step = orthogonalise(net.weight.grad.flatten(1)) * 0.2 * 36**0.5  # scale does not matter to the first direction
    assert torch.allclose(net.weight, before.weight * (1 - 0.1 * 0.5) - 0.1 * step.view(6, 4, 3, 3), atol=1e-5)
    assert torch.allclose(net.bias, before.bias - 0.1 * net.bias.grad.sign(), atol=1e-4)  # Adam's first step


def test_it_goes_on_from_its_state() -> None:
    def train(net: nn.Module, optimizer: Muon, steps: range) -> None:
        for i in steps:
            optimizer.zero_grad()
            x = torch.randn(8, 5, generator=torch.Generator().manual_seed(i))
            net(x).square().mean().backward()
            optimizer.step()

    torch.manual_seed(0)
    whole = nn.Linear(5, 3)
    split = copy.deepcopy(whole)
    train(whole, Muon(groups(whole), lr=0.01), range(6))
    first = Muon(groups(split), lr=0.01)
    train(split, first, range(3))
    second = Muon(groups(split), lr=0.01)
    second.load_state_dict(first.state_dict())
    train(split, second, range(3, 6))
    assert torch.equal(whole.weight, split.weight) and torch.equal(whole.bias, split.bias)
