"""ProC-KD: K-means, the terms by hand, teachers of other classes, and images without a label."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from making_features import SLIM_CNN, VIT, WIDE_CNN, batch, outputs, setup, side
from torch.nn import functional as F

from edgekd.artifacts import ModelSpec
from edgekd.config import DistillConfig, method_choices
from edgekd.data import load_dataset
from edgekd.distill import distill
from edgekd.distill.methods._base import Outputs
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.prockd import ProCKD, spherical_kmeans
from edgekd.errors import ConfigError
from edgekd.progress import NullProgress

TEACHER = side(WIDE_CNN, classes=11)  # of other classes


def prepared(student=SLIM_CNN, teacher=TEACHER, **options: float) -> ProCKD:
    method = ProCKD(**{"count": 6, "dim": 8, **options})
    given = setup(side(student), teacher)
    method.prepare(replace(given, taught=lambda samples: outputs(teacher, int(samples[0]), images=len(samples))))
    return method


def test_kmeans_finds_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = F.normalize(torch.randn(5, 16, generator=generator))
    points = F.normalize(truth.repeat(40, 1) + 0.02 * torch.randn(200, 16, generator=generator))
    centres = spherical_kmeans(points, 5, seed=1)
    assert torch.allclose(centres.norm(dim=1), torch.ones(5))
    assert (truth @ centres.T).amax(1).min() > 0.99
    assert torch.equal(centres, spherical_kmeans(points, 5, seed=1))


def test_terms_by_hand() -> None:
    method, student, teacher = prepared(weight=2.0, assignment=3.0), outputs(side(SLIM_CNN), 0), outputs(TEACHER, 1)
    terms = method.loss(student, teacher, batch(), 0)
    x = F.adaptive_avg_pool2d(student.features["stage3"], 2).flatten(2).transpose(1, 2)
    t = teacher.features["layer3"].flatten(2).transpose(1, 2)
    c = method.prototypes
    e, f = method.of_prototypes, method.of_student
    kls, added = [], []
    for i in range(8):
        for n in range(4):
            a = (e(c) @ f(x[i, n]) / 8**0.5).softmax(0)
            p = (c @ t[i, n] / t[i, n].norm() / 0.1).softmax(0)
            kls.append((p * (p.log() - a.log())).sum())
            added.append(method.augment(torch.cat([f(x[i, n]), a @ e(c)])))
    augmented = student.embeddings + torch.stack(added).view(8, 4, -1).mean(1)
    expected = F.cross_entropy(method.classifier[0](augmented), batch().labels)
    assert terms["prockd"].item() == pytest.approx(2 * expected.item(), rel=1e-4)
    assert terms["prockd_assignment"].item() == pytest.approx(3 * torch.stack(kls).mean().item(), rel=1e-4)


@pytest.mark.parametrize(("student", "teacher"), [(VIT, TEACHER), (SLIM_CNN, side(VIT, classes=2)), (VIT, side(VIT))])
def test_families_mix(student, teacher) -> None:
    method = prepared(student, teacher)
    given = outputs(side(student), 0, grad=True)
    terms = method.loss(given, outputs(teacher, 1), batch(), 0)
    sum(terms.values()).backward()
    last = list(given.features.values())[-1]
    assert last.grad is not None and last.grad.abs().sum() > 0 and all(p.grad is not None for p in method.parameters())


def test_images_without_a_label_learn_the_assignment_alone() -> None:
    method, student, teacher = prepared(), outputs(side(SLIM_CNN), 0), outputs(TEACHER, 1)
    given = (student, teacher)
    whole, none = batch(), replace(batch(), labels=torch.tensor([0, -1] * 4))
    some = [Outputs(o.logits[::2], {k: v[::2] for k, v in o.features.items()}, o.embeddings[::2]) for o in given]
    a, b = method.loss(student, teacher, none, 0), method.loss(*some, replace(whole, labels=torch.zeros(4).long()), 0)
    assert a["prockd"].item() == pytest.approx(b["prockd"].item(), rel=1e-5)
    assert a["prockd_assignment"] == method.loss(student, teacher, whole, 0)["prockd_assignment"]
    for value, wanted in (("prockd", False), ({"prockd": {"unlabelled": True}}, True)):
        row = make_method(method_choices(value), 0.0, 0)[1]
        assert ("unlabelled" in row.needs) == wanted and row.any_classes and not row.replayable


def test_too_few_positions_are_refused() -> None:
    with pytest.raises(ConfigError, match="distill.method prockd: 300 prototypes of 160 positions\nLower count"):
        prepared(count=300)


def test_a_run_with_a_teacher_of_other_classes(tmp_path) -> None:
    """Methods of features and embeddings take it, those of logits refuse it."""
    from safetensors.torch import save_file

    from edgekd.models import build_random

    data = load_dataset("digits")
    data = replace(data, train=data.train[slice(96)], val=data.val[slice(20)])
    spec = ModelSpec("edgekd", "resnet8", 4, data.input_shape, mean=data.mean, std=data.std)
    save_file(build_random(spec, 1).state_dict(), tmp_path / "t.safetensors")
    teacher, student = replace(spec, weights=str(tmp_path / "t.safetensors")), replace(spec, num_classes=10)
    given = {"teacher": teacher, "student": student, "data": data, "seed": 0, "progress": NullProgress()}
    for name, method in (("a", {"prockd": {"unlabelled": True, "count": 8}}), ("b", "mimic")):
        (tmp_path / name).mkdir()
        labels = 0.5 if name == "a" else None
        config = DistillConfig(epochs=1, batch_size=32, views=1, method=method, labels=labels)
        assert 0 <= distill(tmp_path / name, config=config, **given).metrics["val_top1"] <= 1
    with pytest.raises(ConfigError, match="kd compares classes, and the teacher has 4, the data have 10"):
        distill(tmp_path, config=DistillConfig(), **given)
