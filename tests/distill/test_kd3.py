"""KD3: terms and selection by hand, the shared classifier in the plain student, runs on a pool, and pools refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making_networks import CLASSES, SHAPE, digits, random_teacher, resnet
from torch import nn
from torch.nn import functional as F

from edgekd.artifacts import ModelSpec
from edgekd.catalog import METHODS
from edgekd.config import DistillConfig, method_choices
from edgekd.data import Dataset
from edgekd.distill import distill
from edgekd.distill.methods._base import Batch, Network, Outputs, Setup
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods._heads import ToShared
from edgekd.distill.methods._logits import kl
from edgekd.distill.methods._pool import Selection, mean_of, mix_distribution
from edgekd.distill.methods.kd3 import KD3
from edgekd.distill.streams import with_streams
from edgekd.errors import ConfigError
from edgekd.models import load_checkpoint
from edgekd.models.cifar import CifarResNet
from edgekd.models.taps import Tapped
from edgekd.progress import NullProgress


def prepared(**options: float) -> tuple[KD3, CifarResNet, Outputs, Outputs, Batch]:
    """With outputs of both networks for one batch, the first eight of a pool of 32."""
    student, teacher, method = resnet(4, 4, 6), resnet(4, 8, 10).requires_grad_(False), KD3(**options)
    watched, other = (Tapped(model, SHAPE, embeddings=True) for model in (student, teacher))
    images = torch.randint(0, 256, (32, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))

    def seen(rows: np.ndarray) -> torch.Tensor:
        return images[torch.from_numpy(rows)].permute(0, 3, 1, 2) / 255

    network = Network(student, (0.0,) * 3, (1.0,) * 3, SHAPE)
    method.prepare(
        Setup(
            watched.side,
            other.side,
            CLASSES,
            torch.full((32,), -1),
            0,
            10,
            student_network=network,
            taught=lambda rows: other(seen(rows)),
        )
    )
    rows = np.arange(8)
    batch = Batch(images[:8].numpy(), torch.full((8,), -1), rows, 0)
    return method, student, watched(seen(rows)), other(seen(rows)), batch


def test_terms_by_hand() -> None:
    method, student, ours, theirs, batch = prepared(keep=0.5, contrast=0.3, temperature=2.0, feature=0.7)
    torch.manual_seed(5)
    terms = method.loss(ours, theirs, batch, 0)
    confidence, predicted = theirs.logits.softmax(1).max(1)
    kept = confidence >= method.selection.limits[predicted]
    assert 0 < kept.sum() < 8
    projected = method.projector(ours.embeddings)
    logits = method.classifiers[0](projected)
    kd = 4 * F.kl_div(F.log_softmax(logits[kept] / 2, 1), F.softmax(theirs.logits[kept] / 2, 1), reduction="batchmean")
    weights = confidence[kept] / confidence[kept].sum()
    feature = (weights * (projected - theirs.embeddings)[kept].square().mean(1)).sum()
    torch.manual_seed(5)
    images = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2) / 255
    shares = torch.distributions.Beta(0.1, 0.1).sample((8,))
    mixed = mix_distribution(images, torch.randperm(8), shares)
    other = F.normalize(method.projector(student.forward_features(mixed).mean((2, 3))))
    scores = (F.normalize(projected) @ other.T / 0.2)[kept]
    expected = {
        "kd3": kd,
        "kd3_feature": 0.7 * feature,
        "kd3_contrast": 0.3 * F.cross_entropy(scores, torch.arange(8)[kept]),
    }
    assert {k: t.item() for k, t in terms.items()} == pytest.approx(
        {k: t.item() for k, t in expected.items()}, rel=1e-4
    )


def test_the_student_has_its_say_after_the_warm_up() -> None:
    method, _, ours, theirs, batch = prepared(warm=0.5, contrast=0.0)
    student = method.classifiers[0](method.projector(ours.embeddings)).softmax(1)
    alone, both = theirs.logits.softmax(1), (theirs.logits.softmax(1) + student) / 2
    for step, p in ((7, alone), (8, both)):  # of four steps a pass; the third begins after half of the ten
        method.loss(ours, theirs, batch, step)
        method.after_step(step)
        assert torch.allclose(method.selection.confidence[:8], p.max(1).values)
        assert torch.equal(method.selection.predicted[:8], p.argmax(1))


def test_the_student_counts_a_pass_after_it_is_first_seen() -> None:
    method, _, ours, theirs, batch = prepared(warm=0.5, contrast=0.0, feature=0.0)
    alone = theirs.logits.softmax(1)
    method.selection.limits.fill_(alone.max(1).values.min())  # what the teacher alone is sure enough of
    logits = method.classifiers[0](method.projector(ours.embeddings))
    rows = kl(F.log_softmax(logits / 4, 1), F.log_softmax(theirs.logits / 4, 1)) * 16
    sure = ((alone + logits.softmax(1)) / 2).max(1).values >= method.selection.limits[0]
    assert 0 < sure.sum() < 8
    for step, kept in ((8, torch.ones(8)), (12, sure.float())):
        found = method.loss(ours, theirs, batch, step)["kd3"]
        assert found.item() == pytest.approx((rows * kept).sum().item() / kept.sum().item(), rel=1e-4)


def test_the_plain_student_has_the_shared_classifier() -> None:
    method, student, ours, theirs, batch = prepared()
    method.loss(ours, theirs, batch, 0)
    method.after_step(0)
    expected = method.classifiers[0](method.projector(ours.embeddings))
    assert torch.allclose(student.fc(ours.embeddings), expected, atol=1e-5)
    assert method.export(student) is student


def test_a_step_moves_the_logits_no_further_than_that_of_a_classifier_of_its_own() -> None:
    torch.manual_seed(0)
    shared, own, x = nn.Linear(6, 4), nn.Linear(5, 4), torch.randn(3, 5)
    shared.weight.data *= 20
    shared.requires_grad_(False)
    moved = []
    for classifier in (own, nn.Sequential(ToShared(5, shared), shared)):
        before = classifier(x)
        before[:, 0].sum().backward()
        torch.optim.SGD([p for p in classifier.parameters() if p.requires_grad], 1.0).step()
        moved.append((classifier(x) - before).norm().item())
    assert 0.05 * moved[0] < moved[1] <= moved[0]


def test_the_most_confident_of_every_class_count() -> None:
    confidence, predicted = torch.arange(10) / 10, torch.tensor([0, 1] * 5)
    chosen = Selection(confidence, predicted, 3, 0.4)
    assert chosen.limits.tolist() == pytest.approx([0.6, 0.7, 0.0])
    assert chosen.counts(confidence, predicted).nonzero()[:, 0].tolist() == [6, 7, 8, 9]
    chosen.see(np.array([0, 2]), torch.tensor([0.95, 0.99]), torch.tensor([0, 0]))
    assert chosen.confidence[0] == 0, "what counts does not change within a step"
    chosen.update(3)  # not the end of a pass
    assert chosen.confidence[0] == 0.95 and chosen.limits[0].item() == pytest.approx(0.6)
    chosen.see(np.array([4, 6]), torch.tensor([0.1, 0.2]), torch.tensor([0, 0]))
    chosen.update(4)  # two of ten a step: it is
    assert chosen.limits[0].item() == pytest.approx(0.95)
    assert Selection(confidence, predicted, 3, 1.0).counts(torch.zeros(10), predicted).all()


def test_mixed_distributions_by_hand() -> None:
    images = torch.randn(3, 2, 8, 8)
    partners, shares = torch.tensor([1, 2, 0]), torch.tensor([1.0, 0.0, 0.5])
    mixed = mix_distribution(images, partners, shares)
    assert torch.allclose(mixed[0], images[0], atol=1e-5)
    for value in (torch.mean, torch.std):
        own = value(images, (2, 3))
        assert torch.allclose(
            value(mixed, (2, 3)), shares[:, None] * own + (1 - shares)[:, None] * own[partners], atol=1e-4
        )
    assert mean_of(torch.ones(3), torch.zeros(3)) == 0


@pytest.fixture(scope="module")
def data() -> Dataset:
    return digits(200)


@pytest.fixture(scope="module")
def teacher(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return random_teacher(data, tmp_path_factory.mktemp("teacher"))


def pool(path: Path, images: int = 96) -> str:
    rng = np.random.default_rng(0)
    np.savez(path, images=rng.integers(0, 200, (images, 8, 8), np.uint8), labels=np.arange(images) % 3)
    return str(path)


@pytest.mark.parametrize("targets", ["replay", "live"])
def test_a_run_on_a_pool_ships_the_plain_student(
    targets: str, data: Dataset, teacher: ModelSpec, tmp_path: Path
) -> None:
    unlabelled = pool(tmp_path / "pool.npz")
    config = DistillConfig(epochs=2, batch_size=32, views=2, method="kd3", unlabelled=unlabelled, targets=targets)
    student = replace(teacher, weights=None, mean=(), std=())
    out = tmp_path / "out"
    out.mkdir()
    made = distill(out, teacher=teacher, student=student, data=data, config=config, seed=0, progress=NullProgress())
    record = json.loads((out / "distill.json").read_text())
    assert (record["labelled"], record["unlabelled"]) == (0, 96) and record["notes"][0].startswith("kd3: ")
    assert record["targets"] == targets and isinstance(load_checkpoint(made).fc, nn.Linear)
    assert made.spec.mean[0] == pytest.approx(99.5 / 255, abs=0.01), "normalised as the pool, not as the original data"
    assert len(json.loads((out / "history.json").read_text())) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unlabelled": None}, "distill.unlabelled: kd3 learns from a pool of other images, and there is none"),
        ({"batch_size": 97}, "distill.unlabelled: a pool of 96 images is smaller than a batch of 97"),
        ({"labels": 0.1}, "distill.labels: kd3 uses none"),
        ({"mixup": 1.0}, "distill.mixup: kd3 chooses among whole images"),
        ({"ensemble": "confidence"}, "distill.ensemble: confidence goes by labels"),
        ({"label_smoothing": 0.1}, "distill.label_smoothing: kd3 has no labels"),
        ({"method": {"kd3": {"keep": 0.0}}}, "kd3: keep is 0.0"),
    ],
)
def test_what_it_cannot_do_is_refused(
    changes: dict, message: str, data: Dataset, teacher: ModelSpec, tmp_path: Path
) -> None:
    given = {"method": "kd3", "batch_size": 32, "unlabelled": pool(tmp_path / "pool.npz"), **changes}
    config, student = DistillConfig(**given), replace(teacher, weights=None)
    with pytest.raises(ConfigError, match=message):
        distill(tmp_path, teacher=teacher, student=student, data=data, config=config, seed=0, progress=NullProgress())


def test_methods_that_need_labels_are_refused() -> None:
    for other in METHODS["kd3"].refuses:
        with pytest.raises(ConfigError, match="kd3 cannot be listed with"):
            make_method(method_choices(["kd3", other]), 0.0, 0)
    for name, row in METHODS.items():
        alone = not row.owns_labels and {"labels", "table"} & set(row.needs)
        assert not alone or name in METHODS["kd3"].refuses, name


def test_kd_takes_no_pool(data: Dataset, tmp_path: Path) -> None:
    config = DistillConfig(unlabelled=pool(tmp_path / "pool.npz"))
    with pytest.raises(ConfigError, match="distill.unlabelled: kd makes no use"):
        with_streams(data, METHODS["kd"], config, 0)
