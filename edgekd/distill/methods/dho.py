"""DHO: one head learns the labels, another the teacher, and both are mixed at inference (Kang et al. 2025, 2505.07675).

Few images have labels, many have none; every batch holds both (`distill.labels`, `distill.unlabelled`). With h1 the
student's own classifier and h2 a second one on the same embedding z, l the labelled and u the unlabelled images,

    L = ce_weight CE(h1(z_l), y) + (1 - ce_weight) T^2 [ KL(softmax(t_l / T) || softmax(h2(z_l) / T)) + the same of u ],

batch means. h1 never sees an image without its label, h2 never a label. What ships gives log p, C values,

    p = alpha softmax(h1(z)) + (1 - alpha) softmax(h2(z) / beta),

in one graph: one linear layer of 2C outputs, beta folded into its weights, and the mixture. (alpha, beta) are those of
the best validation top-1 on the authors' grid; of equal ones those nearest to (0.5, 1). Their few-shot script searches
on test images. ce_weight 1/2 and T = 2 are theirs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.data import Split
from edgekd.distill.methods._base import UNLABELLED, Batch, Method, Network, Outputs, Setup
from edgekd.distill.methods._features import full_precision, seeded
from edgekd.distill.methods._heads import Reheaded, check_one_head, detached_copy
from edgekd.distill.methods._logits import positive, share
from edgekd.distill.methods.kd import kd_loss
from edgekd.tasks.classification import hard_loss, predict_torch

ALPHAS = tuple(i / 20 for i in range(21))
BETAS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)


class Mixture(nn.Module):
    """Embeddings [B, D] -> log of the mixed probabilities [B, C]."""

    def __init__(self, width: int, num_classes: int, alpha: float) -> None:
        super().__init__()
        self.linear, self.num_classes, self.alpha = nn.Linear(width, 2 * num_classes), num_classes, alpha

    def forward(self, embedding: Tensor) -> Tensor:
        both = self.linear(embedding)
        labels, teacher = both[:, : self.num_classes], both[:, self.num_classes :]  # Split is newer than Slice in ONNX
        mixed: Tensor = self.alpha * labels.softmax(1) + (1 - self.alpha) * teacher.softmax(1)
        return mixed.clamp_min(1e-12).log()


class DualHead(Reheaded):
    """What ships."""

    def __init__(self, student: nn.Module, classifier: str, width: int, num_classes: int, alpha: float) -> None:
        super().__init__(student, classifier, Mixture(width, num_classes, alpha))


def chosen(labels: NDArray[np.float32], teacher: NDArray[np.float32], truth: NDArray[np.int64]) -> tuple[float, float]:
    """(alpha, beta) of the best top-1 on both heads' logits [N, C] and the true classes [N]."""
    h1, h2 = (torch.from_numpy(logits).double() for logits in (labels, teacher))
    of_labels, of_teacher = h1.softmax(1), {beta: (h2 / beta).softmax(1) for beta in BETAS}
    grid = sorted(((a, b) for a in ALPHAS for b in BETAS), key=lambda p: (abs(p[0] - 0.5), abs(np.log(p[1])), p))
    right = [
        int(((a * of_labels + (1 - a) * of_teacher[b]).argmax(1) == torch.from_numpy(truth)).sum()) for a, b in grid
    ]
    return grid[right.index(max(right))]


class DHO(Method):
    minimum: ClassVar[float | None] = 0.0

    def __init__(self, ce_weight: float = 0.5, temperature: float = 2.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        share(self, ce_weight=ce_weight, label_smoothing=label_smoothing)
        positive(self, temperature=temperature)
        self.ce_weight, self.temperature, self.label_smoothing = ce_weight, temperature, label_smoothing
        self.head: nn.Module = nn.Identity()
        self.classifier: tuple[nn.Module, ...] = ()  # the student's: the head of the labels
        self.networks: tuple[Network, ...] = ()
        self.val: Split | None = None
        self.record: dict[str, Any] = {}
        self.beta, self.checked = 1.0, False

    def prepare(self, setup: Setup) -> None:
        width, classes = setup.student.embedding, setup.num_classes
        with seeded(setup.seed):
            self.head = nn.Linear(width, classes)
        self.classifier, self.val = (setup.student.classifier,), setup.val
        self.networks = () if setup.student_network is None else (setup.student_network,)
        self.record = {"width": width, "num_classes": classes, "alpha": 0.5}

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None and student.embeddings is not None
        if not self.checked:
            check_one_head(student, self.classifier[0], "dho")
        self.checked = True
        taught = self.head(student.embeddings.float())
        streams = [rows for rows in (batch.labels != UNLABELLED, batch.labels == UNLABELLED) if rows.any()]
        kds = [kd_loss(taught[rows], teacher.logits[rows], self.temperature) for rows in streams]
        return {
            "ce": self.ce_weight * hard_loss(student.logits.float(), batch.labels, self.label_smoothing),
            "dho": (1 - self.ce_weight) * torch.stack(kds).sum(),
        }

    def export(self, student: nn.Module) -> nn.Module:
        """The student with the mixture of both heads, in eval mode; `record` has what builds it again."""
        copy, self.record["classifier"] = detached_copy(student, self.classifier[0])
        net = DualHead(copy, **self.record).to(next(student.parameters()).device)
        mixture = copy.get_submodule(self.record["classifier"])
        assert isinstance(mixture, Mixture)
        with torch.no_grad():
            for i, head in enumerate((self.classifier[0], self.head)):
                assert isinstance(head, nn.Linear)
                mixture.linear.weight.view(2, *head.weight.shape)[i] = head.weight
                mixture.linear.bias.view(2, -1)[i] = 0 if head.bias is None else head.bias
            if self.val is not None and self.networks:
                classes = mixture.num_classes
                plain = Reheaded(copy, self.record["classifier"], mixture.linear).eval()
                both = predict_torch(plain, self.val.images, self.networks[0].mean, self.networks[0].std)
                self.record["alpha"], self.beta = chosen(both[:, :classes], both[:, classes:], self.val.labels)
                mixture.alpha = self.record["alpha"]
                copy.set_submodule(self.record["classifier"], mixture)
            mixture.linear.weight[len(mixture.linear.weight) // 2 :] /= self.beta
            mixture.linear.bias[len(mixture.linear.bias) // 2 :] /= self.beta
        return net.eval()

    def report(self, out: Path) -> list[str]:
        return [f"dho: alpha {self.record['alpha']:g} and beta {self.beta:g} were chosen on validation images"]
