"""Methods for the tests of the loop: adapters, buffers and random draws, on features, on embeddings, on what ships."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup


class Regress(Method):
    """The last map and the embedding by adapters, with random weights on the channels, and a count of the images."""

    needs = ("features", "embeddings")
    family = "feature"
    images: Tensor

    def prepare(self, setup: Setup) -> None:
        assert setup.teacher is not None
        (self.tap, shape), (self.aim, target) = (
            list(side.shapes.items())[-1] for side in (setup.student, setup.teacher)
        )
        self.maps = nn.Conv2d(shape[0], target[0], 1)
        self.vectors = nn.Linear(setup.student.embedding, setup.teacher.embedding)
        self.register_buffer("images", torch.zeros((), dtype=torch.long))
        self.head = (setup.teacher.classifier,)

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None and student.features is not None and teacher.features is not None
        assert student.embeddings is not None and teacher.embeddings is not None
        ours, theirs = self.maps(student.features[self.tap]), teacher.features[self.aim]
        weights = torch.rand(theirs.shape[1], 1, 1)
        self.images += len(batch.labels)
        vectors = self.vectors(student.embeddings)
        logits = self.head[0](vectors)
        return {
            "maps": (weights * (ours - theirs).square()).mean(),
            "vectors": F.mse_loss(vectors, teacher.embeddings) + F.mse_loss(logits, teacher.logits) / 100,
        }


class Embedded(Method):
    """The embedding by a linear map: what replay can store."""

    needs = ("embeddings",)

    def prepare(self, setup: Setup) -> None:
        assert setup.teacher is not None
        self.vectors = nn.Linear(setup.student.embedding, setup.teacher.embedding)

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None and student.embeddings is not None and teacher.embeddings is not None
        return {"vectors": F.mse_loss(self.vectors(student.embeddings), teacher.embeddings)}


class Shifted(nn.Module):
    """A network that says `label` whatever it sees."""

    shift: Tensor

    def __init__(self, student: nn.Module, label: int) -> None:
        super().__init__()
        self.student = student
        self.register_buffer("shift", 1e3 * F.one_hot(torch.tensor(label), 10).float())

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.student(images) + self.shift
        return logits


class Shipping(Embedded):
    ships_extra = True

    def export(self, student: nn.Module) -> nn.Module:
        self.record = {"label": 0}
        return Shifted(student, 0)


class Picky(Embedded):
    min_classes = 11


class Everything(Embedded):
    needs = ("embeddings", "all_logits")
