"""The distillation token: values by hand, timm's distilled DeiT, and students without one."""

from __future__ import annotations

import math

import pytest
import torch
from making_features import DISTILLED_VIT, SLIM_CNN, VIT, WIDE_CNN, batch, outputs, setup, side
from torch import nn

from edgekd.distill.methods._base import Outputs, Setup, Side
from edgekd.distill.methods._heads import same_logits
from edgekd.distill.methods.kd import kd_loss
from edgekd.distill.methods.token import DistillationToken
from edgekd.errors import ConfigError


def by_hand(**options: object) -> dict[str, torch.Tensor]:
    """Token head (0, 0), class head (2, 0), so logits (1, 0); the label is 0 and the teacher says 1."""
    method = DistillationToken(**options)  # type: ignore[arg-type]
    method.head = (nn.Identity(),)
    student = Outputs(torch.tensor([[1.0, 0.0]]), None, torch.zeros(1, 2))
    return method.loss(student, Outputs(torch.tensor([[0.0, 4.0]])), batch(1), 0)


def test_hard_by_hand() -> None:
    terms = by_hand()
    assert terms["ce"].item() == pytest.approx(0.5 * math.log(1 + math.exp(-2)), rel=1e-5)
    assert terms["token"].item() == pytest.approx(0.5 * math.log(2), rel=1e-5)


def test_soft_is_the_divergence_of_the_token_head() -> None:
    terms = by_hand(kind="soft", alpha=0.1, temperature=2.0)
    expected = kd_loss(torch.zeros(1, 2), torch.tensor([[0.0, 4.0]]), 2.0)
    assert terms["token"].item() == pytest.approx(0.1 * expected.item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(0.9 * math.log(1 + math.exp(-2)), rel=1e-5)


def test_the_heads_of_timms_distilled_deit() -> None:
    import timm

    net = timm.create_model("deit_tiny_distilled_patch16_224", img_size=16, patch_size=8, num_classes=5, depth=1)
    images = torch.randn(4, 3, 16, 16)
    tokens = net.forward_features(images)
    student = Outputs(net(images), None, tokens[:, 1])
    method = DistillationToken()
    method.prepare(Setup(Side({"blocks.0": (6, 192)}, 192, net.head_dist), None, 5, torch.arange(5), 0))
    terms = method.loss(student, Outputs(torch.randn(4, 5)), batch(4), 0)
    expected = nn.functional.cross_entropy(net.head(tokens[:, 0]), batch(4).labels)
    assert terms["ce"].item() == pytest.approx(0.5 * expected.item(), rel=1e-4)
    sum(terms.values()).backward()
    assert net.head.weight.grad.abs().sum() > 0 and net.dist_token.grad.abs().sum() > 0
    assert not list(method.parameters())


@pytest.mark.parametrize("shapes", [SLIM_CNN, VIT])
def test_students_without_a_token_are_refused(shapes) -> None:
    with pytest.raises(ConfigError, match="no distillation token"):
        DistillationToken().prepare(setup(side(shapes), side(WIDE_CNN)))


def test_a_student_with_one_head_is_refused_in_the_first_batch() -> None:
    method = DistillationToken()
    student = side(DISTILLED_VIT)
    method.prepare(setup(student, side(WIDE_CNN)))
    given = outputs(student, 0)
    single = Outputs(student.classifier(given.embeddings), given.features, given.embeddings)
    with pytest.raises(ConfigError, match="no distillation token"):
        method.loss(single, outputs(side(WIDE_CNN), 1), batch(), 0)


@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_one_head_is_told_from_two_in_bf16_too(scale: float) -> None:
    torch.manual_seed(0)
    one, other, x = nn.Linear(64, 100), nn.Linear(64, 100), scale * torch.randn(32, 64).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits, second = one(x).float(), other(x).float()
    alone = one(x.float()).detach()
    assert same_logits(alone, logits) and not torch.equal(alone, logits)
    assert not same_logits(alone, (logits + second) / 2)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="kind 'warm'"):
        DistillationToken(kind="warm")
