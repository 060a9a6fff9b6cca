"""ProC-KD: prototypes of what the teacher sees at single positions, for a student of any label space.

Li et al. 2022, arXiv 2212.13180. c_k are prototypes of the teacher's last tapped feature at positions, of length 1.
With x_n the student's feature at position n, and linear encoders E and F to `dim` values,

    A_nk = softmax_k(E c_k . F x_n / sqrt(dim)),   v_n = sum_k A_nk E c_k,
    e' = e + mean_n ReLU(W [F x_n; v_n]),
    L = weight CE(h(e'), y) + assignment mean_n KL(softmax_k(c_k . t_n / T) || A_n),

e the student's embedding, h its own classifier, t_n the teacher's feature at n, of length 1: the student's features are
augmented with prototypes, and classified by the shared head beside the plain ones, whose label term is owned by what is
listed beside. No class of the teacher enters. All but the student is dropped at export.

Augmentation, shared head and K = 72 are the paper's, whose released code is incomplete. Reconstructed: prototypes are
found by spherical K-means on `images` training images before the first step, where the paper learns them in a NetVLAD
layer; the assignment loss is an addition, without which nothing the teacher sees in an image would reach the student;
the augmented part is a mean over positions, since not every network has a class token; and the weights are ours.

With `unlabelled` images without a label learn the assignment beside those that have one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.catalog import MethodRow
from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import Pair, fold, full_precision, pair_taps, paired_maps, same_size, seeded
from edgekd.distill.methods._logits import kl, not_negative, positive
from edgekd.errors import ConfigError
from edgekd.tasks.classification import hard_loss

CHUNK = 100  # images of one pass of the teacher
POSITIONS = 20_000  # that K-means takes in


def spherical_kmeans(points: Tensor, k: int, seed: int, rounds: int = 20) -> Tensor:
    """`k` centres [k, D] of length 1 for `points` [N, D] of length 1, N >= k; they start at points far from another."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    nearest = points @ points[chosen[0]]
    while len(chosen) < k:
        distance = (1 - nearest).clamp_min(1e-9).cpu()
        chosen.append(int(torch.multinomial(distance, 1, generator=generator)))
        nearest = torch.maximum(nearest, points @ points[chosen[-1]])
    centres = points[chosen]
    for _ in range(rounds):
        nearest_centre = (points @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest_centre, points)
        moved = F.normalize(torch.where(sums.norm(dim=1, keepdim=True) > 0, sums, centres))
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


class ProCKD(Method):
    minimum: ClassVar[float | None] = None
    prototypes: Tensor  # [K, D_t], of length 1

    def __init__(
        self,
        weight: float = 1.0,
        assignment: float = 1.0,
        count: int = 72,
        dim: int = 128,
        temperature: float = 0.1,
        images: int = 1000,
        unlabelled: bool = False,
    ) -> None:
        super().__init__()
        not_negative(self, weight=weight, assignment=assignment)
        positive(self, count=count, dim=dim, temperature=temperature, images=images)
        self.weight, self.assignment, self.temperature = weight, assignment, temperature
        self.count, self.dim, self.images, self.unlabelled = count, dim, images, unlabelled
        self.pairs: tuple[Pair, ...] = ()
        self.classifier: tuple[nn.Module, ...] = ()
        self.of_prototypes: nn.Module = nn.Identity()
        self.of_student: nn.Module = nn.Identity()
        self.augment: nn.Module = nn.Identity()

    def row(self, row: MethodRow) -> MethodRow:
        return replace(row, needs=(*row.needs, "unlabelled")) if self.unlabelled else row

    def prepare(self, setup: Setup) -> None:
        self.pairs = pair_taps(setup, "prockd")[-1:]
        self.classifier = (setup.student.classifier,)
        self.register_buffer("prototypes", spherical_kmeans(self._positions(setup), self.count, setup.seed))
        with seeded(setup.seed):
            self.of_prototypes = nn.Linear(self.pairs[0].c_teacher, self.dim)
            self.of_student = nn.Linear(self.pairs[0].c_student, self.dim)
            self.augment = nn.Sequential(nn.Linear(2 * self.dim, setup.student.embedding), nn.ReLU())

    def _positions(self, setup: Setup) -> Tensor:
        """What the teacher sees at positions of some training images, [N, D_t] of length 1."""
        assert setup.taught is not None
        order = np.random.default_rng([*b"prockd", setup.seed]).permutation(len(setup.labels))[: self.images]
        tap, found = self.pairs[0].teacher, []
        for i in range(0, len(order), CHUNK):
            features = setup.taught(order[i : i + CHUNK]).features
            assert features is not None
            found.append(fold(features[tap], tap).float().flatten(2).transpose(1, 2).flatten(0, 1))
        points = torch.cat(found)
        points = F.normalize(points[torch.linspace(0, len(points) - 1, min(POSITIONS, len(points))).long()])
        if len(points) < self.count:
            raise ConfigError(
                f"distill.method prockd: {self.count} prototypes of {len(points)} positions", "Lower count."
            )
        return points

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert student.embeddings is not None
        ours, theirs = same_size(*paired_maps(self.pairs, student, teacher)[0])
        seen = F.normalize(theirs.flatten(2).transpose(1, 2), dim=2) @ self.prototypes.T / self.temperature  # [B, N, K]
        prototypes, own = self.of_prototypes(self.prototypes), self.of_student(ours.flatten(2).transpose(1, 2))
        assigned = F.log_softmax(own @ prototypes.T / self.dim**0.5, 2)
        added = self.augment(torch.cat([own, assigned.exp() @ prototypes], 2)).mean(1)
        logits = self.classifier[0](student.embeddings.float() + added)
        rows = kl(assigned.flatten(0, 1), F.log_softmax(seen, 2).flatten(0, 1))
        return {
            "prockd": self.weight * hard_loss(logits, batch.labels),
            "prockd_assignment": self.assignment * rows.mean(),
        }
