"""DeiT's distillation token: a second token and head that learn the teacher while the first learn the labels.

Touvron et al. 2021. Hard (eq. 3): L = (1 - alpha) CE(z_class, y) + alpha CE(z_token, argmax z_t), alpha 1/2.
Soft (eq. 2): the second term is alpha T^2 KL(softmax(z_t / T) || softmax(z_token / T)); the paper has alpha 0.1, T 3.

The student is a transformer with both heads whose logits are their mean, as the distilled DeiTs of timm are, and so it
ships. One head is the classifier that the dry run found, z_1 = W e + b; the other follows from the mean,
z_2 = 2 z - z_1. Which is called which makes no difference: both tokens are learnt and start alike.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._features import full_precision, leading_tokens
from edgekd.distill.methods._heads import same_logits
from edgekd.distill.methods.kd import kd_loss
from edgekd.errors import ConfigError
from edgekd.tasks.classification import hard_loss

NO_TOKEN = (
    "distill.method token: the student has no distillation token",
    "Use a student with one, such as timm's deit_tiny_distilled_patch16_224, or another method: kd, ofakd.",
)


class DistillationToken(Method):
    """`kind` is `hard` or `soft`. Raises ConfigError for a student without a distillation token."""

    minimum: ClassVar[float | None] = None

    def __init__(
        self, kind: str = "hard", alpha: float = 0.5, temperature: float = 3.0, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if kind not in ("hard", "soft"):
            raise ConfigError(f"distill.method token: kind {kind!r} is not known", "Use hard or soft.")
        self.kind, self.alpha, self.temperature, self.label_smoothing = kind, alpha, temperature, label_smoothing
        self.head: tuple[nn.Module, ...] = ()
        self.checked = False

    def prepare(self, setup: Setup) -> None:
        shapes = list(setup.student.shapes.values())
        if shapes and (len(shapes[-1]) != 2 or leading_tokens(shapes[-1][0]) != 2):
            raise ConfigError(*NO_TOKEN)
        self.head = (setup.student.classifier,)

    @full_precision
    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None and student.embeddings is not None
        logits, target = student.logits.float(), teacher.logits.float()
        of_token: Tensor = self.head[0](student.embeddings.float())
        if not self.checked and same_logits(of_token, logits):  # one head alone is the mean
            raise ConfigError(*NO_TOKEN)
        self.checked = True
        if self.kind == "hard":
            token = F.cross_entropy(of_token, target.argmax(1))
        else:
            token = kd_loss(of_token, target, self.temperature)
        ce = hard_loss(2 * logits - of_token, batch.labels, self.label_smoothing)
        return {"ce": (1 - self.alpha) * ce, "token": self.alpha * token}
