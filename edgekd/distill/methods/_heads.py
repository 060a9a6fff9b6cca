"""Students that ship with another classifier than the one they were built with, or with the teacher's."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Outputs
from edgekd.errors import ConfigError


class Reheaded(nn.Module):
    """`student` with `head` in the place of its module `classifier`; images [B, C, H, W] -> logits [B, K].

    What ships is a subclass that makes its head of plain values, and so is built again from them and a state dict.
    """

    def __init__(self, student: nn.Module, classifier: str, head: nn.Module) -> None:
        super().__init__()
        student.set_submodule(classifier, head)
        self.student, self.classifier = student, classifier

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.student(images)
        return logits

    @property
    def head(self) -> nn.Module:
        """Embeddings [B, D] -> logits [B, K]."""
        return self.student.get_submodule(self.classifier)


class ToShared(nn.Linear):
    """Embeddings [B, d] -> those [B, d_W] that the frozen classifier W reads, divided by W's largest singular value.

    Undivided, a step moves the logits by W W^T times what the same step on a classifier would: 24 times for a CIFAR-10
    ResNet-56, whose student diverges at a learning rate that is right for it with a classifier of its own.
    """

    def __init__(self, embedding: int, shared: nn.Linear) -> None:
        super().__init__(embedding, shared.in_features)
        self.scale = 1 / torch.linalg.matrix_norm(shared.weight.detach().float(), 2).item()

    def forward(self, embeddings: Tensor) -> Tensor:
        weight, bias = self.folded()
        return F.linear(embeddings, weight, bias)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight [d_W, d] and bias [d_W] of a plain linear layer."""
        return self.scale * self.weight, self.scale * self.bias


def detached_copy(student: nn.Module, classifier: nn.Module) -> tuple[nn.Module, str]:
    """A copy of the student in eval mode, and the name of its classifier, which is found by identity."""
    name = next((name for name, module in student.named_modules() if module is classifier), None)
    if name is None:
        raise ValueError("export wants the student that prepare saw")
    return deepcopy(student).eval(), name


def same_logits(a: Tensor, b: Tensor) -> bool:
    """Whether [B, K] and [B, K] differ by no more than the rounding of a bf16 network, whatever their size."""
    return bool((a - b).norm() <= 0.05 * b.norm() + 1e-3)


def check_one_head(outputs: Outputs, classifier: nn.Module, method: str, whose: str = "student") -> None:
    """Raises ConfigError unless the classifier gives the logits alone: of two heads one cannot be replaced."""
    assert outputs.embeddings is not None
    with torch.no_grad():
        if not same_logits(classifier(outputs.embeddings.float()), outputs.logits.float()):
            raise ConfigError(
                f"distill.method {method}: the {whose}'s logits are made of more than one classifier",
                f"Use a {whose} with one head, such as deit_tiny_patch16_224, or another method: kd, token.",
            )
