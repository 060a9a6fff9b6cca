"""KD: match the teacher's softened distribution (Hinton et al. 2015, section 2), optionally on standardised logits.

L = (1 - alpha) CE(s, y) + alpha T^2 KL(softmax(t / T) || softmax(s / T)), batch mean.
With `zscore` each row is first standardised, z -> (z - mean) / std (Sun et al. 2024, algorithm 1): the student then
has to match the teacher's ranking and shape, not its scale.

With `temperature_end` T moves from `temperature` to it within `anneal_epochs`, in a line as Annealing-KD does towards
1 (Jafari et al. 2021, arXiv 2104.07163) or along the half cosine of CTKD's curriculum (Li et al. 2023, arXiv
2211.16231). The schedule alone is theirs: Annealing-KD scales the teacher's logits under a squared error, and CTKD
learns T against the student and schedules the strength of that.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch
from edgekd.distill.methods._logits import LogitMethod, cosine, positive, share
from edgekd.errors import ConfigError


def kd_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0, zscore: bool = False) -> Tensor:
    """T^2 KL(teacher || student), mean over the rows of logits [N, K]; 0 when they are equal."""
    student, teacher = student.float(), teacher.float()
    if zscore:
        student, teacher = _standardise(student), _standardise(teacher)
    log_p = F.log_softmax(student / temperature, 1)
    log_q = F.log_softmax(teacher / temperature, 1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * temperature**2


def _standardise(logits: Tensor) -> Tensor:
    return (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True).clamp_min(1e-7)


class KD(LogitMethod):
    """Raises ConfigError where a schedule is half given or named wrong."""

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float = 0.9,
        zscore: bool = False,
        label_smoothing: float = 0.0,
        temperature_end: float | None = None,
        anneal_epochs: float | None = None,
        anneal: str = "cosine",
    ) -> None:
        super().__init__(label_smoothing)
        positive(self, temperature=temperature)
        share(self, alpha=alpha)
        if (temperature_end is None) != (anneal_epochs is None):
            raise ConfigError(
                "distill.method kd: temperature_end and anneal_epochs need each other",
                "Give both, anneal_epochs at most distill.epochs, or neither.",
            )
        if anneal not in ("cosine", "linear"):
            raise ConfigError(f"distill.method kd: anneal is {anneal!r}", "Write cosine or linear.")
        if temperature_end is not None and anneal_epochs is not None:
            positive(self, temperature_end=temperature_end, anneal_epochs=anneal_epochs)
        self.temperature, self.zscore, self.alpha = temperature, zscore, alpha
        self.temperature_end, self.anneal_epochs, self.anneal = temperature_end, anneal_epochs, anneal
        self.ce_weight = 1 - alpha

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        temperature = self.temperature
        if self.temperature_end is not None:
            temperature = self.temperature_at(self.epoch(batch, step))
        return {"kd": self.alpha * kd_loss(student, teacher, temperature, self.zscore)}

    def temperature_at(self, epoch: float) -> float:
        if self.temperature_end is None or self.anneal_epochs is None:
            return self.temperature
        done = min(1.0, epoch / self.anneal_epochs)
        done = cosine(done) if self.anneal == "cosine" else done
        return self.temperature + done * (self.temperature_end - self.temperature)
