import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgekd.artifacts import ModelSpec
from edgekd.errors import ModelError
from edgekd.models import build_model
from edgekd.search.scorers import ScoringTask
from edgekd.search.scorers.diswot import (
    DisWOT,
    channel_similarity,
    class_similarity,
    classifier_gradient,
    gaussian_init,
    relation_gram,
    trace,
)
from edgekd.search.scorers.macs import Macs
from edgekd.search.scorers.params import Params
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace

SPACE = CifarResNetSpace(5, (3, 16, 16))
TEACHER = ModelSpec("edgekd", "resnet14", 5, (3, 16, 16))


def task(inits=2, seed=0):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 3, 16, 16, generator=generator)
    return ScoringTask(TEACHER, images, torch.arange(12) % 5, seed, inits)


def test_channel_similarity_equals_the_papers_matrices():
    generator = torch.Generator().manual_seed(3)
    teacher, student = (torch.randn(10, 24, generator=generator, dtype=torch.float64) for _ in range(2))
    student = 0.5 * student + teacher
    teacher[2, 5] = student[4, 7] = student[2, 5] = 0  # a dead channel has a zero row
    matrices = [F.normalize(g[:, :, None] * g[:, None, :], dim=2, eps=1e-12) for g in (teacher, student)]
    expected = -float((matrices[0] - matrices[1]).square().sum()) / (10 * 24)
    assert channel_similarity(teacher, student) == pytest.approx(expected, abs=1e-5)
    assert channel_similarity(teacher, teacher) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ModelError, match="class_similarity"):
        channel_similarity(teacher, student[:, :8])


def test_class_similarity_ignores_channel_order_and_scale():
    generator = torch.Generator().manual_seed(4)
    teacher = torch.randn(6, 16, generator=generator)
    shuffled = 3 * teacher[:, torch.randperm(16, generator=generator)]
    assert class_similarity(teacher, shuffled) == pytest.approx(0, abs=1e-5)
    other = class_similarity(teacher, torch.randn(6, 40, generator=generator))
    assert -4 <= other < -0.01


def test_gradient_is_autograds():
    model = build_model(TEACHER)
    images, labels = task().images, task().labels
    F.cross_entropy(model(images), labels).backward()
    with torch.no_grad():
        logits, embedding, feature_map = trace(model, images, TEACHER)
        assert torch.allclose(classifier_gradient(logits, embedding, labels), model.fc.weight.grad, atol=1e-6)
        assert torch.equal(feature_map, model.forward_features(images))
    assert "forward_features" not in vars(model)


def test_without_forward_features_the_map_is_the_pools_input():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    images = task().images
    _, embedding, feature_map = trace(model, images, TEACHER)
    assert torch.equal(feature_map, model[:2](images))
    assert embedding.shape == (12, 4)
    with pytest.raises(ModelError, match="no linear classifier of 9 classes"):
        trace(model, images, replace(TEACHER, num_classes=9))


def test_score_is_the_sum_of_both_similarities_over_inits():
    point = SPACE.point(Genotype(depths=(1, 1, 1), widths=(8, 16, 24)))
    scorer = DisWOT(task(inits=1))
    teacher, student = scorer.teachers[0], scorer._view(point.spec, 0)
    semantic = -(teacher.semantic - student.semantic).square().sum() / 5
    relation = -(teacher.relation - student.relation).square().sum() / 12**2
    score = scorer.score(point)
    assert score.value == pytest.approx(float(semantic + relation), abs=1e-5)
    assert score.spread == 0
    assert semantic < 0 and relation < 0
    three = DisWOT(task(inits=3)).score(point)
    assert three.spread > 0 and three.value != score.value


def test_a_score_depends_on_the_genotype_and_the_seed_alone():
    points = [SPACE.point(SPACE.named[name]) for name in ("resnet8", "resnet14")]
    state = torch.random.get_rng_state()
    first = [DisWOT(task()).score(point) for point in points]
    torch.manual_seed(99)
    scorer = DisWOT(task())
    assert [scorer.score(point) for point in reversed(points)] == first[::-1]
    assert scorer.score(points[0]) != DisWOT(task(seed=1)).score(points[0])
    torch.random.set_rng_state(state)
    DisWOT(task())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_teachers_weights_are_not_used(tmp_path):
    weights = tmp_path / "teacher.pt"  # need not even exist
    point = SPACE.point(SPACE.named["resnet8"])
    trained = replace(task(), teacher=replace(TEACHER, weights=str(weights), mean=(0.5,) * 3, std=(0.2,) * 3))
    assert DisWOT(trained).score(point) == DisWOT(task()).score(point)


def test_gaussian_init():
    model = build_model(ModelSpec("edgekd", "resnet20", 10, (3, 32, 32)))
    gaussian_init(model, torch.Generator().manual_seed(0))
    weight = model.layer3[1].conv2.weight
    assert abs(float(weight.detach().std()) - 1) < 0.02
    assert not model.fc.bias.any() and (model.bn1.weight == 1).all()


def test_relation_gram_rows_have_length_one():
    gram = relation_gram(torch.randn(6, 4, 3, 3))
    assert gram.shape == (6, 6)
    assert torch.allclose(gram.norm(dim=1), torch.ones(6))


def test_counting_scorers():
    point = SPACE.point(SPACE.named["resnet8"])
    assert Params(task()).score(point).value == math.log(point.params)
    assert Macs(task()).score(point).value == math.log(point.macs)
