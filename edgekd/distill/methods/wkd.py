"""WKD-L: the least work to move the teacher's probabilities onto the student's (Lv et al. 2024, arXiv 2412.08139).

KL compares class by class; a transport plan may move mass between classes, cheaply between related ones:

    W = <q, c>,  q = argmin_q sum_ij c_ij q_ij + eta q_ij log q_ij  with the two distributions as marginals,
    c_ij = 1 - exp(-kappa (1 - IR_ij)),  IR the similarity of classes i and j in the teacher.

The label is taken apart as in NKD, and W is over the other classes, at temperature T, by Sinkhorn's iteration:

    L = CE - T_y log S_y + weight W, batch mean.

T = 8, weight 600, kappa = 1, eta = 0.05, 10 iterations, and a weight that falls along a half cosine from epoch 150 to
the last, 240 (`decay_start` and `decay_end`, shares of the run; a start of 1 keeps it), as in the authors' CIFAR-100
configuration of ResNet-32x4 to ResNet-8x4 (WRN-40-2 to ShuffleNet: 6 and 200; ImageNet: 2 and 30, falling from the
start). Read in that code and in a summary that quotes the equations.

IR differs from the paper, whose CKA between the features of two classes takes a pass over the data: here it is the
cosine of two prototypes. `relation` "logits" takes the teacher's mean logits of each class, centred, over as many
images as there are to train on, and then keeps them (a class not met yet is unrelated to all); "classifier" the rows
of the teacher's last layer, which the authors' code has as an option and which needs the teacher network.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Setup, Side
from edgekd.distill.methods._logits import NOTHING, LogitMethod, class_mask, not_negative, positive, share
from edgekd.distill.methods._schedules import cosine, progress, run_steps
from edgekd.distill.methods.nkd import target_loss
from edgekd.errors import ConfigError


def transport_cost(prototypes: Tensor, kappa: float) -> Tensor:
    """c [K, K] between classes with `prototypes` [K, D]: 0 on the diagonal, below 1 elsewhere."""
    rows = F.normalize(prototypes, dim=1)
    cost: Tensor = 1 - torch.exp(-kappa * (1 - rows @ rows.T).clamp_min(0))
    return cost.fill_diagonal_(0)


def transport(student: Tensor, teacher: Tensor, cost: Tensor, eta: float = 0.05, iterations: int = 10) -> Tensor:
    """W of each row [N] between distributions [N, K] under cost [K, K]; classes of mass 0 on both sides are absent."""
    kernel = torch.exp(-cost / eta)
    u = (student > 0).float()
    for _ in range(iterations):
        v = teacher / (u @ kernel).clamp_min(1e-30)
        u = student / (v @ kernel.T).clamp_min(1e-30)
    return (u * (v @ (kernel * cost).T)).sum(1)


class WKD(LogitMethod):
    """Raises ConfigError in `prepare` where `relation` is classifier and there is no teacher network."""

    minimum = None
    prototypes: Tensor  # [K, D]: sums where they come from logits
    counts: Tensor  # [K] rows summed

    def __init__(
        self,
        temperature: float = 8.0,
        weight: float = 600.0,
        relation: str = "logits",
        kappa: float = 1.0,
        eta: float = 0.05,
        iterations: int = 10,
        decay_start: float = 150 / 240,
        decay_end: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        positive(self, temperature=temperature, kappa=kappa, eta=eta, iterations=iterations)
        not_negative(self, weight=weight)
        share(self, decay_start=decay_start, decay_end=decay_end)
        if relation not in ("logits", "classifier"):
            raise ConfigError(f"distill.method wkd: relation is {relation!r}", "Write logits or classifier.")
        if not isinstance(iterations, int):
            raise ConfigError(f"distill.method wkd: iterations is {iterations}", "Write a whole number, such as 10.")
        if decay_end < decay_start:
            raise ConfigError(
                f"distill.method wkd: decay_end {decay_end} is before decay_start {decay_start}",
                "Write the two shares of the run between which the weight falls to 0.",
            )
        self.temperature, self.weight, self.relation, self.kappa = temperature, weight, relation, kappa
        self.eta, self.iterations, self.decay_start, self.decay_end = eta, iterations, decay_start, decay_end

    def prepare(self, setup: Setup) -> None:
        self.steps, self.samples = run_steps(self, setup, "decay_start"), len(setup.labels)
        k, device = setup.num_classes, setup.labels.device
        prototypes = torch.zeros(k, k, device=device)
        if self.relation == "classifier":
            if setup.teacher is None:
                raise ConfigError(
                    "distill.method wkd: relation classifier needs the teacher network, and only its logits are here",
                    "Set distill.targets to live, or relation to logits.",
                )
            prototypes = classifier_rows(setup.teacher).to(device)
        self.register_buffer("prototypes", prototypes)
        self.register_buffer("counts", torch.zeros(k, device=device))

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        mask = class_mask(batch.labels, student.shape[1])
        if self.relation == "logits" and self.counts.sum() < self.samples:
            self.prototypes += mask.float().T @ teacher
            self.counts += mask.float().sum(0)
        p, q = ((x / self.temperature).masked_fill(mask, NOTHING).softmax(1) for x in (student, teacher))
        work = transport(p, q, transport_cost(self.relations(), self.kappa), self.eta, self.iterations).mean()
        left = 1 - cosine(progress(step / self.steps, self.decay_start, self.decay_end))
        return {
            "target": target_loss(student, teacher, batch.labels).mean(),
            "wkd": left * self.weight * work,
        }

    def relations(self) -> Tensor:
        """The prototypes that are compared, [K, D]; zero for a class not met yet."""
        if self.relation == "classifier":
            return self.prototypes
        met = self.counts > 0
        means = self.prototypes / self.counts.clamp_min(1)[:, None]
        return (means - means[met].mean(0)) * met[:, None]


@torch.no_grad()
def classifier_rows(side: Side) -> Tensor:
    """W [K, D] of the classifier z = W e + b, whatever module it is: its answer to each unit embedding, less b."""
    device = next(side.classifier.parameters()).device
    units = torch.eye(side.embedding, device=device)
    rows: Tensor = side.classifier(units) - side.classifier(torch.zeros_like(units))
    return rows.T.float()
