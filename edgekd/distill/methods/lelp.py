"""LELP: few classes, split into pseudo-subclasses along the teacher's embeddings (Loo et al. 2024, arXiv 2409.20449).

From the embeddings h [N, D] of training images, what the logits say already is taken out, h' = (I - W^+ W) h with W the
teacher's classifier. Of each class c: the mean m_c and the S main directions V_c of h'; a random rotation R makes them
alike, U_c = V_c R. An image is of subclass j of class c by

    p_cj = softmax(t / T)_c softmax_j(U_c^T (h' - m_c) / (beta sigma_c)),    L = (1 - alpha) T^2 KL(p || softmax(s / T))
                                                                              + alpha CE(fold(s), y),

s the logits [S C] of a head of its own in the place of the student's, fold(s)_c = logsumexp_j s_cj, whose softmax is
the sum over a class's subclasses. What ships is the student with that head and the fold, C logits again.

alpha = 0, labels only to group, is the paper's. That the target is this product, and the scale sigma_c, the root mean
square of the scores of class c, are a reconstruction, as are S = 4 and beta: where not given it is chosen such that a
training image's subclasses have on average half the entropy of S equal ones. Images without a label are grouped by the
teacher. With many classes it is plain KD, so more than 32 are refused without `force`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import UNLABELLED, Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import embeddings, full_precision, seeded, teacher_side
from edgekd.distill.methods._heads import Reheaded, check_one_head, detached_copy
from edgekd.distill.methods._logits import kl, positive, share
from edgekd.distill.methods._subclasses import directions, half_entropy
from edgekd.errors import ConfigError
from edgekd.tasks.classification import hard_loss

CLASSES = 32  # more are refused
CHUNK = 250


class Fold(nn.Module):
    """Embeddings [B, D] -> logits [B, C] of S subclasses each: exactly the sum of their probabilities."""

    def __init__(self, width: int, num_classes: int, subclasses: int) -> None:
        super().__init__()
        self.linear, self.shape = nn.Linear(width, num_classes * subclasses), (-1, num_classes, subclasses)

    def forward(self, embedding: Tensor) -> Tensor:
        logits: Tensor = self.linear(embedding)
        return logits.reshape(self.shape).logsumexp(2)


class Subclassed(Reheaded):
    """What ships."""

    def __init__(self, student: nn.Module, classifier: str, width: int, num_classes: int, subclasses: int) -> None:
        super().__init__(student, classifier, Fold(width, num_classes, subclasses))


class LELP(Method):
    minimum: ClassVar[float | None] = None
    directions: Tensor  # [C, D, S]
    offsets: Tensor  # [C, S]
    beta: Tensor

    def __init__(
        self,
        subclasses: int = 4,
        beta: float | None = None,
        temperature: float = 1.0,
        alpha: float = 0.0,
        images: int = 10_000,
        force: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        positive(self, temperature=temperature, images=images, **({} if beta is None else {"beta": beta}))
        share(self, alpha=alpha, label_smoothing=label_smoothing)
        if subclasses < 2:
            raise ConfigError(f"distill.method lelp: subclasses is {subclasses}", "Write 2 or more.")
        self.subclasses, self.given, self.temperature, self.alpha = subclasses, beta, temperature, alpha
        self.images, self.force, self.label_smoothing = images, force, label_smoothing
        self.head: nn.Module = nn.Identity()
        self.classifier: tuple[nn.Module, ...] = ()  # the student's, which is replaced
        self.record: dict[str, Any] = {}
        self.checked = False

    def prepare(self, setup: Setup) -> None:
        classes, teacher = setup.num_classes, teacher_side(setup, "lelp")
        if classes > CLASSES and not self.force:
            raise ConfigError(
                f"distill.method lelp: with {classes} classes it is no better than kd, above {CLASSES} it is refused",
                "Use kd, or set its option force to true.",
            )
        assert setup.taught is not None and isinstance(teacher.classifier, nn.Linear)
        order = np.random.default_rng([*b"lelp", setup.seed]).permutation(len(setup.labels))[: self.images]
        seen = [setup.taught(order[i : i + CHUNK]) for i in range(0, len(order), CHUNK)]
        h = torch.cat([outputs.embeddings.float() for outputs in seen if outputs.embeddings is not None])
        labels = setup.labels[torch.from_numpy(order).to(setup.labels.device)].to(h.device)
        groups = torch.where(labels == UNLABELLED, torch.cat([outputs.logits for outputs in seen]).argmax(1), labels)
        weight = teacher.classifier.weight.detach().float()
        found = directions(h, groups, weight, self.subclasses, setup.seed)
        for name, value in zip(("directions", "offsets"), found, strict=True):
            self.register_buffer(name, value)
        own = self.scores(h)[torch.arange(len(h), device=h.device), groups]
        self.register_buffer("beta", torch.tensor(self.given or half_entropy(own)))
        with seeded(setup.seed):
            self.head = nn.Linear(setup.student.embedding, classes * self.subclasses)
        self.classifier = (setup.student.classifier,)
        self.record = {"width": setup.student.embedding, "num_classes": classes, "subclasses": self.subclasses}

    def scores(self, h: Tensor) -> Tensor:
        """[B, C, S] of the teacher's embeddings [B, D]."""
        return torch.einsum("bd,cds->bcs", h, self.directions) - self.offsets

    def targets(self, teacher: Tensor, h: Tensor) -> Tensor:
        """log p [B, C S] of the teacher's logits [B, C] and embeddings [B, D]."""
        inside = F.log_softmax(self.scores(h) / self.beta, 2)
        return (F.log_softmax(teacher / self.temperature, 1)[:, :, None] + inside).flatten(1)

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None
        if not self.checked:
            check_one_head(student, self.classifier[0], "lelp")
        self.checked = True
        ours, theirs = embeddings(student, teacher)
        logits = self.head(ours)
        rows = kl(F.log_softmax(logits / self.temperature, 1), self.targets(teacher.logits.float(), theirs))
        folded = logits.unflatten(1, (-1, self.subclasses)).logsumexp(2)
        return {
            "ce": self.alpha * hard_loss(folded, batch.labels, self.label_smoothing),
            "lelp": (1 - self.alpha) * self.temperature**2 * rows.mean(),
        }

    def export(self, student: nn.Module) -> nn.Module:
        """The student with the head and its fold, in eval mode; `record` has what builds it again."""
        copy, self.record["classifier"] = detached_copy(student, self.classifier[0])
        net = Subclassed(copy, **self.record).to(next(student.parameters()).device)
        net.student.get_submodule(f"{self.record['classifier']}.linear").load_state_dict(self.head.state_dict())
        return net.eval()
