"""HARD: learned augmentations that the teacher does not mind and the student does (Nix et al. 2023, arXiv 2305.14890).

A small network, the augmentor, turns, shifts, zooms and colours an image x to x', within bounds times `strength`. Every
`every` steps it learns, on images of the batch, to lower

    teacher D(T(x), T(x')) - min(limit, D(S(x), S(x'))),    D(t, s) = KL(softmax(t / tau) || softmax(s / tau)),

T the teacher and S the student, both at rest; the gradient passes through both. A share `changed` of every batch is x'
in place of x, for both networks, and the student learns all of it by KD,

    L = (1 - alpha) CE(s, y) + alpha tau^2 D(t, s).

A reconstruction: no code was published. Ours are the bounds, without which the augmentor makes images of nothing;
`limit`, above which the student's loss is no longer sought, where the paper takes turns by two thresholds; that a share
of the batch is changed where the paper has both x and x'; and that the augmentor's gradient, scaled to length 0.1, is
followed by the student's optimizer. Their augmentors go up to an autoencoder. It is dropped at export; what it did to
the last images is drawn in augmentations.png.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.augment import Pixels
from edgekd.distill.methods._augmentor import NOISE, Augmentor
from edgekd.distill.methods._base import Batch, Network, Setup
from edgekd.distill.methods._counter import uniform
from edgekd.distill.methods._features import seeded
from edgekd.distill.methods._logits import LogitMethod, not_negative, positive, share
from edgekd.distill.methods._unrolled import follow
from edgekd.distill.methods.kd import kd_loss
from edgekd.errors import ConfigError

SHOWN = 8  # images in the picture
PICTURE = "augmentations.png"


class HARD(LogitMethod):
    """Raises ConfigError in the first step where `distill.mixup` has mixed the images already."""

    minimum: ClassVar[float | None] = 0.0

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float = 0.9,
        changed: float = 0.5,
        teacher: float = 1.0,
        limit: float = 1.0,
        strength: float = 1.0,
        every: int = 4,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        positive(self, temperature=temperature, limit=limit, strength=strength, every=every)
        share(self, alpha=alpha, changed=changed)
        not_negative(self, teacher=teacher)
        self.temperature, self.alpha, self.ce_weight, self.changed = temperature, alpha, 1 - alpha, changed
        self.teacher, self.limit, self.strength, self.every, self.seed = teacher, limit, strength, every, 0
        self.augmentor: nn.Module = nn.Identity()
        self.networks: tuple[Network, ...] = ()  # teacher and student
        self._changed: NDArray[np.int64] = np.zeros(0, np.int64)  # samples of the step
        self._seen: tuple[Batch, int] | None = None  # of a step in which the augmentor learns
        self._picture: NDArray[np.uint8] | None = None

    def prepare(self, setup: Setup) -> None:
        assert setup.student_network is not None and setup.teacher_network is not None
        self.networks, self.seed = (setup.teacher_network, setup.student_network), setup.seed
        with seeded(setup.seed):
            self.augmentor = Augmentor(setup.student_network.input_shape[0], self.strength)

    def transform_batch(self, batch: Batch, step: int) -> Batch:
        if batch.partners is not None:
            raise ConfigError("distill.mixup: hard changes the images itself", "Set distill.mixup to 0.")
        order = uniform(self.seed, step, torch.from_numpy(batch.samples), 1)[:, 0].argsort()
        rows = order[: round(self.changed * len(order))].sort()[0].numpy()
        self._changed = batch.samples[rows]
        if not len(rows):
            return batch
        with torch.no_grad():
            new = self.augmentor(unit(batch.pixels[rows], batch.labels.device), self._noise(batch, rows, step))
        new = (255 * new).round().byte().permute(0, 2, 3, 1)
        pixels = batch.pixels.clone() if isinstance(batch.pixels, Tensor) else batch.pixels.copy()
        pixels[rows] = new if isinstance(pixels, Tensor) else new.cpu().numpy()
        before, after = (torch.as_tensor(p[rows[:SHOWN]]).cpu().numpy() for p in (batch.pixels, pixels))
        self._picture = np.concatenate([np.concatenate(list(images), 1) for images in (before, after)])
        return replace(batch, pixels=pixels)

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        self._seen = (batch, step) if step % self.every == 0 else None
        return {"hard": self.alpha * kd_loss(student, teacher, self.temperature)}

    def backward(self, terms: dict[str, Tensor]) -> None:
        super().backward(terms)
        if self._seen is not None:
            parameters = list(self.augmentor.parameters())
            follow(parameters, torch.autograd.grad(self.objective(*self._seen), parameters))

    def objective(self, batch: Batch, step: int) -> Tensor:
        """What the augmentor lowers, on the images that are as they were."""
        rows = np.flatnonzero(~np.isin(batch.samples, self._changed))
        rows = rows if len(rows) else np.arange(len(batch.samples))
        images = unit(batch.pixels[rows], batch.labels.device)
        new, net = self.augmentor(images, self._noise(batch, rows, step)), self.networks[1].model
        training = net.training
        net.eval()
        teacher, student = (self._apart(network, images, new) for network in self.networks)
        net.train(training)
        return (self.teacher * teacher - student.clamp(max=self.limit)).mean()

    def _apart(self, network: Network, images: Tensor, new: Tensor) -> Tensor:
        """How far the network's answer moves [B]."""
        with torch.no_grad():
            before = F.log_softmax(network(images) / self.temperature, 1)
        after = F.log_softmax(network(new) / self.temperature, 1)
        return F.kl_div(after, before, reduction="none", log_target=True).sum(1)

    def _noise(self, batch: Batch, rows: NDArray[np.int64], step: int) -> Tensor:
        return uniform(self.seed + 1, step, torch.from_numpy(batch.samples[rows]), NOISE).to(batch.labels.device)

    def report(self, out: Path) -> list[str]:
        if self._picture is None:
            return []
        picture = self._picture[..., 0] if self._picture.shape[-1] == 1 else self._picture
        Image.fromarray(picture).save(out / PICTURE)
        return ["hard: images of the last step, as they are above and as the student learned them below"]


def unit(pixels: Pixels, device: torch.device) -> Tensor:
    """float32 [B, C, H, W] in [0, 1] of uint8 [B, H, W, C]."""
    return torch.as_tensor(pixels).to(device).permute(0, 3, 1, 2).float() / 255
