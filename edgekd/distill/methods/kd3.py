"""KD3: a teacher, none of its images, and a pool of others of which the useful ones are kept (Tang et al. 2023).

arXiv 2307.11469. With phi a linear projector of the student's embedding f_s to the teacher's f_t, and W the teacher's
own classifier, which the student shares, the student's logits are s = W phi(f_s), and the loss on the images kept is

    L = T^2 KL(softmax(t / T) || softmax(s / T)) + feature sum_i w_i |phi(f_s,i) - f_t,i|^2 / (D sum_i w_i)
        + contrast InfoNCE(phi(f_s(x)), phi(f_s(x'))).

Selection: an image's confidence w_i is the largest of (softmax(t) + softmax(s)) / 2, of the teacher's alone in the
passes through the pool that begin in the first `warm` of the run; of every class that this predicts, the `keep` most
confident of the pool count, by what was last seen of each image, ranked anew after every pass. Where the student comes
in, it counts a pass after it is first seen: by the ranks of the teacher alone, next to none would be confident enough.
The others take part in the step and in nothing of its loss.
MixDistribution: x' has the means and deviations of its channels mixed with those of another image of the batch by a
share from Beta(a, a), a = 0.1 (as MixStyle, Zhou et al. 2021, which mixes feature maps), and x is to be found again
among the x' of the batch.

A reconstruction: the three parts are the paper's, their formulas, weights and thresholds are ours. What ships is the
plain student: phi and W are both linear, so after every step its own classifier is set to their product. There are no
labels, hence no hard-label term; the pool is `distill.unlabelled`, the training images are not used, validation and
test images are the data's. A confident teacher is no proof that an image belongs to one of the classes; and where the
pool is close to the data, what the teacher doubts teaches most: on CIFAR-100's images a CIFAR-10 student is level with
kd with `keep: 1.0` and seven points below it by the default.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Network, Outputs, Setup
from edgekd.distill.methods._features import embeddings, frozen, full_precision, seeded, teacher_side
from edgekd.distill.methods._heads import ToShared, check_one_head
from edgekd.distill.methods._logits import kl, not_negative, positive, share
from edgekd.distill.methods._pool import Selection, mean_of, mix_distribution
from edgekd.distill.methods._schedules import run_steps
from edgekd.errors import ConfigError

CHUNK = 250  # images of one pass of the teacher
MIX = 0.1  # a of Beta(a, a)


class KD3(Method):
    minimum: ClassVar[float | None] = None
    selection: Selection

    def __init__(
        self,
        keep: float = 0.7,
        warm: float = 0.1,
        temperature: float = 4.0,
        feature: float = 1.0,
        contrast: float = 0.1,
        contrast_temperature: float = 0.2,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        share(self, keep=keep, warm=warm)
        positive(self, keep=keep, temperature=temperature, contrast_temperature=contrast_temperature)
        not_negative(self, feature=feature, contrast=contrast)
        if label_smoothing:
            raise ConfigError("distill.label_smoothing: kd3 has no labels to smooth", "Set it to 0.")
        self.keep, self.warm, self.temperature, self.feature = keep, warm, temperature, feature
        self.contrast, self.contrast_temperature, self.steps = contrast, contrast_temperature, 0
        self.projector: nn.Module = nn.Identity()
        self.classifiers: tuple[nn.Linear, ...] = ()  # the teacher's, frozen, and the student's
        self.networks: tuple[Network, ...] = ()  # the student
        self.checked = False

    def prepare(self, setup: Setup) -> None:
        teacher, own = teacher_side(setup, "kd3"), setup.student.classifier
        assert setup.taught is not None and setup.student_network is not None
        if not isinstance(own, nn.Linear) or own.bias is None:
            raise ConfigError("distill.method kd3: the student's classifier has no bias", "Use another student.")
        shared = frozen(teacher.classifier)[0]
        assert isinstance(shared, nn.Linear)
        self.classifiers, self.networks = (shared, own), (setup.student_network,)
        self.steps = run_steps(self, setup, "warm")
        with seeded(setup.seed):
            self.projector = ToShared(setup.student.embedding, shared)
        rows = np.arange(len(setup.labels))
        parts = [setup.taught(rows[i : i + CHUNK]).logits.float().softmax(1) for i in range(0, len(rows), CHUNK)]
        self.selection = Selection(*torch.cat(parts).max(1), setup.num_classes, self.keep)

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None
        ours, theirs = embeddings(student, teacher)
        shared = self.classifiers[0].to(ours.device)
        if not self.checked:
            check_one_head(student, self.classifiers[1], "kd3")
            check_one_head(teacher, shared, "kd3", "teacher")
        self.checked = True
        projected = self.projector(ours)
        logits, answers = shared(projected), teacher.logits.float()
        p = answers.softmax(1)
        both = (p + logits.detach().softmax(1)) / 2
        length = self.selection.steps(len(p))
        turn, first = step // length, math.ceil(self.warm * self.steps / length)
        confidence, predicted = (both if turn > first else p).max(1)
        kept = self.selection.counts(confidence, predicted)
        self.selection.see(batch.samples, *(both if turn >= first else p).max(1))
        rows = kl(F.log_softmax(logits / self.temperature, 1), F.log_softmax(answers / self.temperature, 1))
        apart = (projected - theirs).square().mean(1)
        terms = {
            "kd3": self.temperature**2 * mean_of(rows, kept),
            "kd3_feature": self.feature * mean_of(apart, kept * confidence),
        }
        if self.contrast:
            z, other = F.normalize(projected), F.normalize(self.projector(self._perturbed(batch, ours.device)))
            scores = z @ other.T / self.contrast_temperature
            rows = F.cross_entropy(scores, torch.arange(len(z), device=z.device), reduction="none")
            terms["kd3_contrast"] = self.contrast * mean_of(rows, kept)
        return terms

    def _perturbed(self, batch: Batch, device: torch.device) -> Tensor:
        """The student's embeddings of the images in another distribution."""
        kept: list[Tensor] = []
        hook = self.classifiers[1].register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0]))
        images = torch.as_tensor(batch.pixels).to(device).permute(0, 3, 1, 2).float() / 255
        shares = torch.distributions.Beta(MIX, MIX).sample((len(images),)).to(device)
        try:
            self.networks[0](mix_distribution(images, torch.randperm(len(images)).to(device), shares))
        finally:
            hook.remove()
        return kept[0].float()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        self.selection.update(step)
        shared, own = self.classifiers
        assert isinstance(self.projector, ToShared)
        weight, bias = self.projector.folded()
        own.weight.copy_(shared.weight @ weight)
        own.bias.copy_(shared(bias))

    def report(self, out: Path) -> list[str]:
        return [f"kd3: {self.selection.summary()}"]
