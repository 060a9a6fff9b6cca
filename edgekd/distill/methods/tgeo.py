"""TGeo-KD: how much to trust the teacher, image by image, from where student, teacher and label lie to each other.

Hu et al. 2024, arXiv 2312.15112. With S, T the softmax of student and teacher, G the label's one-hot and T' the mean T
of its class over training images,

    u = [S, T, G, T', (T' - S)^2, (G - S)^2, (T - S)^2, (T - G)^2, (T' - G)^2],   a = sigmoid(controller(u)),
    L = mean_i [ a_i T^2 KL_i + (1 - a_i) CE_i ],

the controller an MLP of 32 and 16 units. It learns what helps on images that the student is not trained on, a share
`hold_out` of the training set: every `every` steps the student takes a virtual step with rate `rate`,
w' = w - rate dL/dw, and the gradient of the held-out cross-entropy at w' with respect to the controller is taken
through that step, which is exact: what a second differentiation of L would give. S in u is a constant.

The authors' released script computes a without gradient, so that its controller never learns, and applies cross-entropy
to probabilities; neither is done here. Temperature 1.5, the tenth held out, and the layers are theirs. Reconstructed:
the gradient is scaled to length 0.1 and followed by the student's own optimizer, where they have Adam; only every tenth
step is unrolled, at three times the cost of a step of KD. Above 100 classes u would be long: it is then
[S_y, T_y, T'_y, max S, max T] and the norms of those five differences (`scalars`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from edgekd import processes
from edgekd.data.augment import normalise
from edgekd.distill.methods._base import Batch, Network, Setup
from edgekd.distill.methods._features import seeded
from edgekd.distill.methods._geometry import class_means, geometry
from edgekd.distill.methods._logits import LogitMethod, positive
from edgekd.distill.methods._unrolled import Weights, follow, hypergradient
from edgekd.errors import ConfigError

FULL = 100  # classes up to which u is made of whole distributions


class TGeo(LogitMethod):
    minimum: ClassVar[float | None] = 0.0
    means: Tensor  # [C, C] T' of every class

    def __init__(
        self,
        temperature: float = 1.5,
        hold_out: float = 0.1,
        every: int = 10,
        rate: float = 0.1,
        scalars: bool | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        positive(self, temperature=temperature, every=every, rate=rate)
        if not 0 < hold_out < 0.5:
            raise ConfigError(
                f"distill.method tgeo: hold_out is {hold_out}", "Write a share below a half, such as 0.1."
            )
        self.temperature, self.share, self.every, self.rate, self.scalars = temperature, hold_out, every, rate, scalars
        self.controller: nn.Module = nn.Identity()
        self.student: tuple[Network, ...] = ()
        self.held: Callable[[int, int], Batch] | None = None
        self._seen: tuple[Batch, Tensor, Tensor, int] | None = None  # of a step that is unrolled: batch, logits, step

    @property
    def hold_out(self) -> float:
        return self.share

    def prepare(self, setup: Setup) -> None:
        if processes.count() > 1:
            raise ConfigError(
                "distill.method tgeo: BatchNorm over several processes has no forward-mode derivative",
                "Train with one.",
            )
        assert setup.taught is not None and setup.student_network is not None
        classes = setup.num_classes
        self.scalars = classes > FULL if self.scalars is None else self.scalars
        self.student, self.held = (setup.student_network,), setup.held
        self.register_buffer("means", class_means(setup.taught, setup.labels, classes))
        with seeded(setup.seed):
            self.controller = nn.Sequential(
                *(nn.Linear(10 if self.scalars else 9 * classes, 32), nn.LeakyReLU()),
                *(nn.Linear(32, 16), nn.LeakyReLU(), nn.Linear(16, 1), nn.Sigmoid()),
            )

    def transform_batch(self, batch: Batch, step: int) -> Batch:
        if batch.partners is not None:
            raise ConfigError("distill.mixup: tgeo goes by one label an image", "Set distill.mixup to 0.")
        return batch

    def ratio(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """a [N] of both sides' logits [N, C]; the student's are a constant."""
        own, other = student.detach().softmax(1), teacher.softmax(1)
        a: Tensor = self.controller(geometry(own, other, self.means[labels], labels, bool(self.scalars)))
        return a[:, 0]

    def parts(self, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """T^2 KL and CE of each row [N]."""
        log_s, log_t = (F.log_softmax(x / self.temperature, 1) for x in (student, teacher))
        divergence = F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(1) * self.temperature**2
        return divergence, F.cross_entropy(student, labels, reduction="none", label_smoothing=self.label_smoothing)

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        with torch.no_grad():
            a = self.ratio(student, teacher, batch.labels)
        divergence, ce = self.parts(student, teacher, batch.labels)
        self._seen = (batch, student.detach(), teacher, step) if step % self.every == 0 else None
        return {"ce": ((1 - a) * ce).mean(), "tgeo": (a * divergence).mean()}

    def backward(self, terms: dict[str, Tensor]) -> None:
        super().backward(terms)
        if self._seen is not None and self.held is not None:
            parameters = list(self.controller.parameters())
            batch, student, teacher, step = self._seen
            a = self.ratio(student, teacher, batch.labels)
            gradients = torch.autograd.grad(a, parameters, self.hypergradient(a.detach(), batch, teacher, step))
            follow(parameters, gradients)

    def hypergradient(self, a: Tensor, batch: Batch, teacher: Tensor, step: int) -> Tensor:
        """[N]: the derivative of the held-out cross-entropy after the virtual step, with respect to each a_i."""
        assert self.held is not None
        net, held = self.student[0], self.held(step, len(batch.labels))

        def run(images: Batch, at: Weights) -> Tensor:
            buffers = {name: value.clone() for name, value in net.model.named_buffers()}  # BatchNorm's stay as they are
            x = normalise(images.pixels, net.mean, net.std).to(teacher.device)
            logits: Tensor = functional_call(net.model, {**at, **buffers}, (x,))
            return logits.float()

        def parts(at: Weights) -> tuple[Tensor, Tensor]:
            return self.parts(run(batch, at), teacher, batch.labels)

        def inner(at: Weights) -> Tensor:
            return torch.lerp(*parts(at)[::-1], a).mean()

        def slope(at: Weights) -> Tensor:
            return torch.sub(*parts(at)) / len(a)

        def outer(at: Weights) -> Tensor:
            return F.cross_entropy(run(held, at), held.labels)

        weights = {name: p.detach() for name, p in net.model.named_parameters()}
        return hypergradient(inner, slope, outer, weights, self.rate)
