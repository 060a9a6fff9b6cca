"""Scorer `diswot`: how alike a random student and a random teacher see one batch (Dong et al. 2023, arXiv 2303.15678).

On one labelled batch, both networks normalising by batch statistics:

- semantic similarity M_s compares the classifiers' weight gradients G = dL/dW, [K, C], of the cross-entropy, channel
  by channel (`channel_similarity`);
- relation similarity M_r compares the B x B Grams of the last feature maps, rows L2-normalised:
  M_r = -|| R_t - R_s ||_F^2 / B^2.

The score is M_s + M_r, unweighted as in the paper, averaged over `inits` draws of teacher and student. No network is
trained, and none is differentiated: for a linear classifier on embeddings F, G = (softmax(z) - onehot(y))^T F / B.

Weights are drawn as the framework draws them, as in the authors' searches; with the N(0, 1) of their ranking scripts
the score says nothing about DisWOT's own 64 networks. M_s needs one width for both: where the widths differ, the
teacher's channels are repeated or cut, which loses nothing, for a random teacher's have no place of their own.
`diswot_trained` takes the teacher with its weights instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.artifacts import ModelSpec
from edgekd.errors import ModelError
from edgekd.models import build_model
from edgekd.search.scorers import Score, Scorer, ScoringTask
from edgekd.search.scorers._network import random_network
from edgekd.search.spaces import Point


@dataclass(frozen=True)
class View:
    """What a network makes of the batch: gradient of its classifier [K, C], relation Gram [B, B] with unit rows."""

    gradient: Tensor
    relation: Tensor


class DisWOT(Scorer):
    """Raises ModelError when the teacher has no classifier to hook or its features are not finite."""

    def __init__(self, task: ScoringTask) -> None:
        super().__init__(task)
        self.images = task.images.contiguous(memory_format=torch.channels_last)
        self.teachers = self._teachers()

    def _teachers(self) -> list[View]:
        """The teacher of every initialisation."""
        return [self._random_view(self.task.teacher, init) for init in range(self.task.inits)]

    def score(self, point: Point) -> Score:
        values = []
        for init, teacher in enumerate(self.teachers):
            student = self._random_view(point.spec, init)
            semantic = channel_similarity(fit_width(teacher.gradient, student.gradient.shape[1]), student.gradient)
            relation = -_distance(teacher.relation, student.relation) / len(student.relation) ** 2
            values.append(semantic + relation)
        return Score.average(values)

    def _random_view(self, spec: ModelSpec, init: int) -> View:
        model = random_network(spec, self.task.seed, init).eval()
        for module in model.modules():  # batch statistics, and neither dropout nor stochastic depth
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.train()
        return self._view(model, spec)

    def _view(self, model: nn.Module, spec: ModelSpec) -> View:
        model.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            logits, embedding, feature_map = trace(model, self.images, spec)
            view = View(classifier_gradient(logits, embedding, self.task.labels), relation_gram(feature_map))
        if not (view.gradient.isfinite().all() and view.relation.isfinite().all()):
            raise ModelError(
                f"search.scorer diswot: {spec.name} has features that are not finite", "Set search.scorer to params."
            )
        return view


class TrainedDisWOT(DisWOT):
    """DisWOT against the teacher as it was trained."""

    def _teachers(self) -> list[View]:
        with torch.random.fork_rng(devices=[]):  # building draws from the global generator
            return [self._view(build_model(self.task.teacher), self.task.teacher)] * self.task.inits


def trace(model: nn.Module, images: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor, Tensor]:
    """One forward pass: logits [B, K], the classifier's input [B, C] and the last feature map [B, ...].

    The map is what `forward_features` returns where the model has one, else the input of its last global pooling.
    """
    seen: dict[str, Tensor] = {}

    def keep(key: str) -> object:
        return lambda _module, inputs, *_: seen.update({key: inputs[0]})

    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == spec.num_classes]
    pools = [m for m in model.modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    if not heads:
        raise ModelError(
            f"search.scorer diswot: {spec.name} has no linear classifier of {spec.num_classes} classes",
            "Set search.scorer to params.",
        )
    hooks = [heads[-1].register_forward_pre_hook(keep("embedding"))]  # type: ignore[arg-type]
    features = getattr(model, "forward_features", None)
    if features is not None:
        model.forward_features = lambda x: seen.setdefault("map", features(x))  # type: ignore[assignment]
    elif pools:
        hooks.append(pools[-1].register_forward_pre_hook(keep("map")))  # type: ignore[arg-type]
    try:
        logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
        if features is not None:
            del model.forward_features
    return logits, seen["embedding"].flatten(1), seen.get("map", seen["embedding"])


def classifier_gradient(logits: Tensor, embedding: Tensor, labels: Tensor) -> Tensor:
    """dL/dW [K, C] of the mean cross-entropy for a linear classifier: logits [B, K], embedding [B, C], labels [B]."""
    error = logits.softmax(1)
    error[torch.arange(len(labels)), labels] -= 1
    return error.T @ embedding / len(labels)


def relation_gram(feature_map: Tensor) -> Tensor:
    """A A^T [B, B] of the maps [B, ...] flattened, rows L2-normalised: which images look alike."""
    flat = feature_map.flatten(1)
    return F.normalize(flat @ flat.T, dim=1)


def fit_width(gradient: Tensor, width: int) -> Tensor:
    """[K, C] -> [K, width]: the channels over again, or the first of them."""
    return gradient[:, torch.arange(width) % gradient.shape[1]]


def channel_similarity(teacher: Tensor, student: Tensor) -> float:
    """The paper's M_s of two gradients [K, C], in [-4, 0]. Raises ModelError when the widths differ.

    M_s = -1/(CK) sum_k ||E_k^t - E_k^s||_F^2, where E_k = g_k g_k^T with rows L2-normalised. Row i of E_k is
    sign(g_ki) g_k / ||g_k||, so the C x C matrices reduce to M_s = -mean_k [2 - 2 a_k cos(g_k^t, g_k^s)] with
    a_k = mean_i sign(g_ki^t) sign(g_ki^s); a row with g_ki = 0 is zero and counts 0 instead of 1 in the 2.
    """
    if teacher.shape != student.shape:
        raise ModelError(
            f"channel similarity of gradients {tuple(teacher.shape)} and {tuple(student.shape)}",
            "Bring them to one width with fit_width.",
        )
    signs = teacher.sign(), student.sign()
    norms = signs[0].abs().mean(1) + signs[1].abs().mean(1)
    agreement = (signs[0] * signs[1]).mean(1)
    return float(-(norms - 2 * agreement * F.cosine_similarity(teacher, student, dim=1)).mean())


def _distance(a: Tensor, b: Tensor) -> float:
    """||a - b||_F^2, summed in double so that large Grams lose nothing."""
    return float((a.double() - b.double()).square().sum())
