"""KD: match the teacher's softened distribution (Hinton et al. 2015, section 2), optionally on standardised logits.

L = (1 - alpha) CE(s, y) + alpha T^2 KL(softmax(t / T) || softmax(s / T)), batch mean.
With `zscore` each row is first standardised, z -> (z - mean) / std (Sun et al. 2024, algorithm 1): the student then
has to match the teacher's ranking and shape, not its scale. The KL of such rows is small and gives the logits no size:
as theirs, T is 2 then and the KL counts ten times, which with alpha 0.9 are their weights, 0.1 and 9.

With `temperature_end` T moves from `temperature` to it over the first `anneal_share` of the run, all of it by default:
in a line as Annealing-KD does towards 1 (Jafari et al. 2021, arXiv 2104.07163) or along the half cosine of CTKD's
curriculum (Li et al. 2023, arXiv 2211.16231). The schedule alone is theirs: Annealing-KD scales the teacher's logits
under a squared error, and CTKD learns T against the student and schedules the strength of that.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch, Setup
from edgekd.distill.methods._logits import LogitMethod, positive, share
from edgekd.distill.methods._schedules import cosine, progress, run_steps
from edgekd.errors import ConfigError

ZSCORE = 10.0  # times the KL of standardised logits


def kd_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0, zscore: bool = False) -> Tensor:
    """T^2 KL(teacher || student), mean over the rows of logits [N, K]; 0 when they are equal."""
    student, teacher = student.float(), teacher.float()
    if zscore:
        student, teacher = standardise(student), standardise(teacher)
    log_p = F.log_softmax(student / temperature, 1)
    log_q = F.log_softmax(teacher / temperature, 1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * temperature**2


def standardise(logits: Tensor) -> Tensor:
    """Rows [N, K] of mean 0 and (unbiased) standard deviation 1; a constant row becomes 0."""
    return (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True).clamp_min(1e-7)


class KD(LogitMethod):
    """`temperature` is 4 by default, 2 with `zscore`.

    Raises ConfigError where a schedule is named wrong, or given without the temperature that it ends at.
    """

    def __init__(
        self,
        temperature: float | None = None,
        alpha: float = 0.9,
        zscore: bool = False,
        label_smoothing: float = 0.0,
        temperature_end: float | None = None,
        anneal_share: float = 1.0,
        anneal: str = "cosine",
    ) -> None:
        super().__init__(label_smoothing)
        if temperature is None:
            temperature = 2.0 if zscore else 4.0
        positive(self, temperature=temperature)
        share(self, alpha=alpha, anneal_share=anneal_share)
        if anneal not in ("cosine", "linear"):
            raise ConfigError(f"distill.method kd: anneal is {anneal!r}", "Write cosine or linear.")
        if temperature_end is not None:
            positive(self, temperature_end=temperature_end)
        elif (anneal_share, anneal) != (1.0, "cosine"):
            raise ConfigError(
                "distill.method kd: anneal and anneal_share say how the temperature moves, not where it ends",
                "Give temperature_end as well, or neither of the two.",
            )
        self.temperature, self.zscore, self.alpha = temperature, zscore, alpha
        self.temperature_end, self.anneal_share, self.anneal = temperature_end, anneal_share, anneal
        self.ce_weight = 1 - alpha
        self.steps = 0  # of the run, where the temperature moves

    def prepare(self, setup: Setup) -> None:
        if self.temperature_end is not None:
            self.steps = run_steps(self, setup, "anneal_share")

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        weight = self.alpha * (ZSCORE if self.zscore else 1.0)
        return {"kd": weight * kd_loss(student, teacher, self.temperature_at(step), self.zscore)}

    def temperature_at(self, step: int) -> float:
        if self.temperature_end is None:
            return self.temperature
        done = progress(step / self.steps, 0, self.anneal_share)
        done = cosine(done) if self.anneal == "cosine" else done
        return self.temperature + done * (self.temperature_end - self.temperature)
