"""SimKD: the teacher's classifier ships, and the student only learns to feed it (Chen et al. 2022, arXiv 2203.14001).

L = mean (P(F_s) - F_t)^2 on the last maps, P = 1x1, 3x3, 1x1 convolutions with BatchNorm and ReLU, the inner two
`factor` times narrower than the teacher; the prediction is W_t pool(P(F_s)). No label is used: alpha, the weight of the
prediction's cross-entropy, is 0 in the paper. Maps of two sizes are pooled to the smaller.

So the teacher's classifier has to read the mean of its last tapped map. ResNets, EfficientNets and MobileNetV2 are like
that; others are refused, by shape before the start or by value in the first batch. So is a student with two heads, a
distilled transformer: one head cannot be taken out of the mean of two.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import (
    Pair,
    embeddings,
    fold,
    frozen,
    leading_tokens,
    map_shape,
    pair_taps,
    paired_maps,
    same_size,
    seeded,
    teacher_side,
)
from edgekd.errors import ConfigError
from edgekd.tasks.classification import hard_loss

UNFIT = (
    "distill.method simkd: the teacher's classifier does not read the mean of its last tapped map",
    "Name the map before its pooling in distill.taps, or use srrl, which needs no such teacher.",
)


class ReusedClassifier(nn.Module):
    """What ships: the student to its last tap, the projector, pooling and the teacher's classifier; images -> logits.

    All but `student` are plain values: together with a state dict they build it again. `unused` is the student's own
    classifier, which is taken out, and `size` what its map is pooled to where it is larger than the teacher's.
    """

    def __init__(
        self,
        student: nn.Module,
        tap: str,
        unused: str,
        channels: tuple[int, int, int],  # student, inside the projector, teacher
        num_classes: int,
        size: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.student, self.tap, self.size = student, tap, size
        self.student.set_submodule(unused, nn.Identity())
        self.projector = projector(*channels)
        self.classifier = nn.Linear(channels[2], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = self.student.get_submodule(self.tap).register_forward_hook(lambda _m, _i, out: seen.append(out))
        try:
            self.student(images)
        finally:
            hook.remove()
        x = fold(seen[0], self.tap)
        x = x if self.size is None else F.adaptive_avg_pool2d(x, self.size)
        logits: Tensor = self.classifier(self.projector(x).mean((2, 3)))
        return logits


def projector(c_student: int, hidden: int, c_teacher: int) -> nn.Module:
    layers: list[nn.Module] = []
    for c_in, c_out, kernel in ((c_student, hidden, 1), (hidden, hidden, 3), (hidden, c_teacher, 1)):
        layers += [nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
    return nn.Sequential(*layers)


class SimKD(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(self, factor: int = 2, alpha: float = 0.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.factor, self.alpha, self.label_smoothing = factor, alpha, label_smoothing
        self.projector: nn.Module = nn.Identity()
        self.pairs: tuple[Pair, ...] = ()
        self.classifiers: tuple[nn.Module, ...] = ()  # the teacher's, frozen, and the student's
        self.record: dict[str, Any] = {}
        self.checked = False

    def prepare(self, setup: Setup) -> None:
        teacher = teacher_side(setup, "simkd")
        self.pairs = pair_taps(setup, "simkd")[-1:]
        tap, c_teacher = self.pairs[0].student, self.pairs[0].c_teacher
        head = teacher.classifier
        if len(teacher.shapes[self.pairs[0].teacher]) != 3 or c_teacher != teacher.embedding:
            raise ConfigError(*UNFIT)
        if not isinstance(head, nn.Linear):
            raise ConfigError("distill.method simkd: the teacher's classifier is not one linear layer", UNFIT[1])
        shape = setup.student.shapes[tap]
        if len(shape) == 2 and leading_tokens(shape[0]) == 2:
            raise ConfigError(
                "distill.method simkd: the student has a distillation token, hence two heads, and one is replaced here",
                "Use a student with one head, such as deit_tiny_patch16_224, or another method: token, ofakd, srrl.",
            )
        self.classifiers = (*frozen(head), setup.student.classifier)
        ours, theirs = map_shape(shape, tap)[1:], teacher.shapes[self.pairs[0].teacher][1:]
        size = (min(ours[0], theirs[0]), min(ours[1], theirs[1]))
        channels = (self.pairs[0].c_student, c_teacher // self.factor, c_teacher)
        self.record = {"tap": tap, "channels": channels, "num_classes": setup.num_classes}
        self.record["size"] = None if size == ours else size
        with seeded(setup.seed):
            self.projector = projector(*channels)

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        ours, theirs = paired_maps(self.pairs, student, teacher)[0]
        if not self.checked:
            embedding = embeddings(student, teacher)[1]
            if (theirs.mean((2, 3)) - embedding).norm() > 0.05 * embedding.norm():
                raise ConfigError(*UNFIT)
        self.checked = True
        ours, theirs = same_size(ours, theirs)
        ours = self.projector(ours).float()
        logits = self.classifiers[0].to(ours.device)(ours.mean((2, 3)))
        ce = hard_loss(logits, batch.labels, self.label_smoothing)
        return {"ce": self.alpha * ce, "simkd": F.mse_loss(ours, theirs)}

    def export(self, student: nn.Module) -> nn.Module:
        """The composite in eval mode, on the student's device; `record` has what builds it again."""
        unused = next((name for name, m in student.named_modules() if m is self.classifiers[1]), None)
        if unused is None:
            raise ValueError("export wants the student that prepare saw")
        self.record["unused"] = unused
        device = next(student.parameters()).device
        net = ReusedClassifier(deepcopy(student), **self.record).to(device)
        net.projector.load_state_dict(self.projector.state_dict())
        net.classifier.weight.data.copy_(self.classifiers[0].weight)  # type: ignore[arg-type]
        bias = self.classifiers[0].bias
        net.classifier.bias.data.copy_(torch.zeros(()) if bias is None else bias)  # type: ignore[arg-type]
        return net.eval()
