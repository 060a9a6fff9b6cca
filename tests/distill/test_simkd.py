"""SimKD: the loss by hand, the composite that ships and how it is built again, and teachers it does not fit."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from making_features import CLASSES, DISTILLED_VIT, SLIM_CNN, VIT, WIDE_CNN, batch, outputs, setup, side
from torch import nn

from edgekd.distill.methods._base import Outputs, Setup, Side
from edgekd.distill.methods.simkd import ReusedClassifier, SimKD
from edgekd.errors import ConfigError
from edgekd.models.cifar import CifarResNet
from edgekd.models.vit import AutoFormer


def test_values_by_hand() -> None:
    student, teacher = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 3.0]]]])
    method = SimKD(factor=1, alpha=1.0)
    network = side({"x": (1, 1, 2)}, classes=2)
    nn.init.zeros_(network.classifier.weight)
    method.prepare(setup(network, network))
    method.projector = nn.Identity()
    embedding, none = torch.tensor([[2.0]]), torch.zeros(1, 2)
    nn.init.zeros_(method.classifiers[0].bias)
    terms = method.loss(Outputs(none, {"x": student}, none), Outputs(none, {"x": teacher}, embedding), batch(1), 0)
    assert terms["simkd"].item() == pytest.approx((1 + 9) / 2)
    assert terms["ce"].item() == pytest.approx(torch.tensor(2.0).log().item())  # the frozen classifier is all zeros


def test_no_label_is_used_by_default() -> None:
    student, teacher = side(SLIM_CNN), side(WIDE_CNN)
    method = SimKD()
    method.prepare(setup(student, teacher))
    assert method.loss(outputs(student, 0), outputs(teacher, 1), batch(), 0)["ce"].item() == 0


def resnet_side(net: CifarResNet, size: int, tap: str) -> Side:
    return Side({tap: (net.fc.in_features, size, size)}, net.fc.in_features, net.fc)


def cnn_pair() -> tuple[SimKD, CifarResNet, CifarResNet]:
    torch.manual_seed(0)
    student, teacher = CifarResNet(CLASSES, (1, 1, 1), (4, 6, 8)), CifarResNet(CLASSES, (1, 1, 1), (4, 8, 12))
    method = SimKD()
    sides = (resnet_side(net, 4, "layer3") for net in (student, teacher))
    method.prepare(Setup(*sides, CLASSES, torch.arange(9), 0))
    for net in (student, teacher, method):
        net.eval()
    return method, student, teacher


def test_what_ships_is_the_prediction_that_was_trained() -> None:
    method, student, teacher = cnn_pair()
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        shipped = method.export(student)
        features = student.forward_features(images)
        assert torch.allclose(shipped(images), teacher.fc(method.projector(features).mean((2, 3))), atol=1e-6)
    assert isinstance(student.fc, nn.Linear), "the student was changed"
    assert not any(name.startswith("student.fc") for name in shipped.state_dict())


def test_it_is_built_again_from_its_record_and_weights() -> None:
    method, student, _ = cnn_pair()
    shipped, images = method.export(student), torch.randn(2, 3, 16, 16)
    fresh = ReusedClassifier(CifarResNet(CLASSES, (1, 1, 1), (4, 6, 8)), **method.record).eval()
    fresh.load_state_dict(shipped.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(images), shipped(images))


def test_it_can_be_traced_for_export() -> None:
    method, student, _ = cnn_pair()
    shipped, images = method.export(student), torch.randn(2, 3, 16, 16)
    program = torch.export.export(shipped, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    with torch.no_grad():
        assert torch.allclose(program.module()(images), shipped(images), atol=1e-6)


def test_a_transformer_can_be_the_student() -> None:
    student = AutoFormer(CLASSES, 12, [1], [2.0], image_size=16, patch=4).eval()  # 4x4 patches to a teacher of 2x2
    teacher = CifarResNet(CLASSES, (1, 1, 1), (4, 8, 12)).eval()
    method = SimKD()
    tokens = Side({"blocks.0": (17, 12)}, 12, student.head)
    method.prepare(Setup(tokens, resnet_side(teacher, 2, "layer3"), CLASSES, torch.arange(9), 0))
    assert method.record["size"] == (2, 2)
    with torch.no_grad():
        assert method.export(student)(torch.randn(2, 3, 16, 16)).shape == (2, CLASSES)


def test_a_student_with_two_heads_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"simkd: the student has a distillation token, hence two heads.*\nUse"):
        SimKD().prepare(setup(side(DISTILLED_VIT), side(WIDE_CNN)))


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (side(VIT), "does not read the mean"),
        (replace(side(WIDE_CNN), embedding=100), "does not read the mean"),
        (replace(side(WIDE_CNN), classifier=nn.Sequential(nn.Linear(24, 9), nn.Linear(9, 5))), "not one linear layer"),
    ],
)
def test_unfit_teachers_are_refused(teacher: Side, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SimKD().prepare(setup(side(SLIM_CNN), teacher))


def test_a_teacher_with_a_norm_after_its_pooling_is_refused_in_the_first_batch() -> None:
    student, teacher = side(SLIM_CNN), side(WIDE_CNN)
    method = SimKD()
    method.prepare(setup(student, teacher))
    given = outputs(teacher, 1)
    normed = Outputs(given.logits, given.features, nn.functional.layer_norm(given.embeddings, (24,)))
    with pytest.raises(ConfigError, match="does not read the mean"):
        method.loss(outputs(student, 0), normed, batch(), 0)
    method.loss(outputs(student, 0), given, batch(), 0)


def test_export_wants_the_student_it_was_prepared_with() -> None:
    method, student, _ = cnn_pair()
    with pytest.raises(ValueError, match="the student that prepare saw"):
        method.export(deepcopy(student))
