"""Scorer `diswot`: how alike a random student and a random teacher see one batch (Dong et al. 2023, arXiv 2303.15678).

Both networks have weights drawn from N(0, 1) and normalise by batch statistics. On one labelled batch:

- semantic similarity M_s compares the classifiers' weight gradients G = dL/dW, [K, C], of the cross-entropy;
- relation similarity M_r compares the B x B Grams of the last feature maps, rows L2-normalised:
  M_r = -|| R_t - R_s ||_F^2 / B^2.

The score is M_s + M_r, unweighted as in the paper, averaged over `inits` draws. No network is trained, and none is
differentiated: for a linear classifier on embeddings F, G = (softmax(z) - onehot(y))^T F / B.

The paper's M_s needs one width for teacher and student (`channel_similarity`). In a space whose last width varies that
leaves nearly nothing to compare, and mixing two measures would rank by which one applied. So this scorer compares the
K x K Grams G G^T of all candidates alike (`class_similarity`), which any two widths have; per normalised row, as there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.artifacts import ModelSpec
from edgekd.errors import ModelError
from edgekd.search.scorers import Score, Scorer, ScoringTask
from edgekd.search.scorers._network import network_seed, random_network
from edgekd.search.spaces import Point


@dataclass(frozen=True)
class View:
    """What a network makes of the batch: semantic Gram [K, K] and relation Gram [B, B], rows normalised."""

    semantic: Tensor
    relation: Tensor


class DisWOT(Scorer):
    """Raises ModelError when the teacher has no classifier to hook or its random features are not finite."""

    def __init__(self, task: ScoringTask) -> None:
        super().__init__(task)
        self.images = task.images.contiguous(memory_format=torch.channels_last)
        self.teachers = [self._view(task.teacher, init) for init in range(task.inits)]

    def score(self, point: Point) -> Score:
        values = []
        for init, teacher in enumerate(self.teachers):
            student = self._view(point.spec, init)
            semantic = -_distance(teacher.semantic, student.semantic) / len(student.semantic)
            relation = -_distance(teacher.relation, student.relation) / len(student.relation) ** 2
            values.append(semantic + relation)
        return Score.average(values)

    def _view(self, spec: ModelSpec, init: int) -> View:
        model = random_network(spec, self.task.seed, init)
        gaussian_init(model, torch.Generator().manual_seed(network_seed(spec, self.task.seed, init)))
        model.eval().to(memory_format=torch.channels_last)
        for module in model.modules():  # batch statistics, and neither dropout nor stochastic depth
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.train()
        with torch.inference_mode():
            logits, embedding, feature_map = trace(model, self.images, spec)
            gradient = classifier_gradient(logits, embedding, self.task.labels)
            view = View(class_gram(gradient), relation_gram(feature_map))
        if not (view.semantic.isfinite().all() and view.relation.isfinite().all()):
            raise ModelError(
                f"search.scorer diswot: random weights give {spec.name} features that are not finite",
                "Set search.scorer to params.",
            )
        return view


def gaussian_init(model: nn.Module, generator: torch.Generator) -> None:
    """Convolution and linear weights from N(0, 1), biases 0, normalisations the identity; in place."""
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            nn.init.normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm):
            if module.weight is not None:
                nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


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


def class_gram(gradient: Tensor) -> Tensor:
    """G G^T [K, K] of G [K, C], rows L2-normalised: which classes pull the classifier the same way."""
    return F.normalize(gradient @ gradient.T, dim=1)


def relation_gram(feature_map: Tensor) -> Tensor:
    """A A^T [B, B] of the maps [B, ...] flattened, rows L2-normalised: which images look alike."""
    flat = feature_map.flatten(1)
    return F.normalize(flat @ flat.T, dim=1)


def class_similarity(teacher: Tensor, student: Tensor) -> float:
    """Channel-free M_s of two gradients [K, C_t], [K, C_s]: -||class_gram(t) - class_gram(s)||_F^2 / K, in [-4, 0]."""
    return -_distance(class_gram(teacher), class_gram(student)) / len(teacher)


def channel_similarity(teacher: Tensor, student: Tensor) -> float:
    """The paper's M_s of two gradients [K, C], in [-4, 0]. Raises ModelError when the widths differ.

    M_s = -1/(CK) sum_k ||E_k^t - E_k^s||_F^2, where E_k = g_k g_k^T with rows L2-normalised. Row i of E_k is
    sign(g_ki) g_k / ||g_k||, so the C x C matrices reduce to M_s = -mean_k [2 - 2 a_k cos(g_k^t, g_k^s)] with
    a_k = mean_i sign(g_ki^t) sign(g_ki^s); a row with g_ki = 0 is zero and counts 0 instead of 1 in the 2.
    """
    if teacher.shape != student.shape:
        raise ModelError(
            f"channel similarity of gradients {tuple(teacher.shape)} and {tuple(student.shape)}",
            "Use class_similarity.",
        )
    signs = teacher.sign(), student.sign()
    norms = signs[0].abs().mean(1) + signs[1].abs().mean(1)
    agreement = (signs[0] * signs[1]).mean(1)
    return float(-(norms - 2 * agreement * F.cosine_similarity(teacher, student, dim=1)).mean())


def _distance(a: Tensor, b: Tensor) -> float:
    """||a - b||_F^2, summed in double so that large Grams lose nothing."""
    return float((a.double() - b.double()).square().sum())
