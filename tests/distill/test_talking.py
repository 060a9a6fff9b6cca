"""Talking: what comes through the teacher's tail, the gradient that it passes, and teachers it does not fit."""

from __future__ import annotations

import pytest
import torch
from making_features import batch
from making_networks import CLASSES, SHAPE, resnet, vit
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Network, Outputs, Setup
from edgekd.distill.methods._segment import Segment
from edgekd.distill.methods.kd import kd_loss
from edgekd.distill.methods.talking import Talking
from edgekd.errors import ConfigError
from edgekd.models.taps import Tapped


def network(model: nn.Module) -> Network:
    return Network(model.requires_grad_(False), (0.5,) * 3, (0.25,) * 3, SHAPE)


def prepared(student: nn.Module, teacher: nn.Module, **options: float) -> tuple[Talking, Outputs, Outputs]:
    """With outputs of both for one batch."""
    method, watched, other = Talking(**options), *(Tapped(net, SHAPE, features=True) for net in (student, teacher))
    method.prepare(Setup(watched.side, other.side, CLASSES, torch.arange(9), 0, teacher_network=network(teacher)))
    images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = other(images)
    return method.eval(), watched(images), theirs


@pytest.mark.parametrize("make", [lambda: resnet(4, 8, 12), vit])
def test_a_tail_goes_on_from_a_feature(make) -> None:
    net = make()
    tapped = Tapped(net, SHAPE, features=True)
    with torch.no_grad():
        outputs = tapped(torch.randn(5, *SHAPE))
        for tap, feature in outputs.features.items():
            tail = Segment(network(net), tap)
            tail.check()
            assert torch.allclose(tail(feature), outputs.logits, atol=1e-5), tap


def test_the_terms_of_a_feature_that_the_adapter_hands_on_as_it_is() -> None:
    teacher = resnet(4, 8, 12)
    method, _, theirs = prepared(resnet(4, 8, 12), teacher, task=0.5, answer=2.0, state=3.0)
    method.adapter = nn.Identity()
    other = Outputs(theirs.logits + torch.randn(8, CLASSES), theirs.features)
    terms = method.loss(theirs, other, batch(), 0)
    assert terms["talking"].item() == pytest.approx(
        0.5 * F.cross_entropy(theirs.logits, batch().labels).item(), rel=1e-5
    )
    assert terms["talking_answer"].item() == pytest.approx(2 * kd_loss(theirs.logits, other.logits).item(), rel=1e-4)
    assert terms["talking_state"].item() == 0
    assert set(prepared(resnet(4, 4, 8), teacher)[0].loss(theirs_like(4), theirs, batch(), 0)) == {"talking"}


def theirs_like(width: int) -> Outputs:
    return Tapped(resnet(width, width, 8), SHAPE, features=True)(torch.randn(8, *SHAPE))


@pytest.mark.parametrize(("student", "teacher"), [(lambda: resnet(4, 4, 8), vit), (vit, lambda: resnet(4, 8, 12))])
def test_gradients_pass_through_the_tail_to_the_student_alone(student, teacher) -> None:
    ours, frozen = student(), teacher()
    method, outputs, theirs = prepared(ours, frozen)
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    method.loss(outputs, theirs, batch(), 0)["talking"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in ours.parameters())
    assert all(p.grad is not None for p in method.parameters()) and all(p.grad is None for p in frozen.parameters())
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())


def test_the_tap_that_talks_can_be_named() -> None:
    chosen = [prepared(resnet(4, 4, 8), resnet(4, 8, 12), tap=tap)[0].pairs[0].teacher for tap in (0, 2)]
    assert chosen == ["layer1", "layer3"]
    with pytest.raises(ConfigError, match="distill.method talking: tap is 3, of 3 pairs"):
        prepared(resnet(4, 4, 8), resnet(4, 8, 12), tap=3)


class Bypassed(nn.Module):
    """Logits of the feature and of the image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.fc = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1), nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(images)).mean((2, 3))) + images.mean((1, 2, 3))[:, None]


def test_a_teacher_with_a_way_around_the_tap_is_refused() -> None:
    with pytest.raises(ConfigError, match="what follows the teacher's stem does not depend on it alone\nName an"):
        Segment(network(Bypassed()), "stem").check()
    with pytest.raises(ConfigError, match="does not depend on it alone"):
        Segment(network(resnet(4, 8, 12)), "layer2.0.conv1").check()  # beside it runs the block's shortcut
