"""MLKD: match images, pairs of images and pairs of classes, at several temperatures (Jin et al. 2023, section 3).

For each temperature T, with P = softmax(z / T), [N, K], of the student and Q of the teacher:

    instance   T^2 KL(Q || P), batch mean
    batch      ||P P^T - Q Q^T||_F^2 / N: which images are taken for one another
    class      ||P^T P - Q^T Q||_F^2 / K: which classes are

L = ce_weight CE + kd_weight sum_T (instance + batch + class), with ce_weight 0.1, kd_weight 0.9 and T = 2 ... 6 of
the authors' CIFAR-100 code. Reconstructed from that code and summaries, not from the paper's text. Left out of the
code: its second view under strong augmentation, trained for 480 epochs, on which the published figure rests (methods
here see one view a step), and its confidence masks, which multiply means already taken and so only halve them.

The last two levels are sums, and the class level grows as (N / K)^2: the authors halve their learning rate to 0.025
at N = 64 and K = 100. With few classes or a large batch lower the rate further, or kd_weight.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Batch
from edgekd.distill.methods._logits import LogitMethod, kl, not_negative, positive
from edgekd.errors import ConfigError


def instance_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    rows = kl(F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1))
    return temperature**2 * rows.mean()


def gram_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """||S S^T - T T^T||_F^2 / M of two matrices [M, D]: images by classes for the batch, transposed for the classes."""
    return (student @ student.T - teacher @ teacher.T).square().sum() / len(student)


class MLKD(LogitMethod):
    def __init__(
        self,
        temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
        ce_weight: float = 0.1,
        kd_weight: float = 0.9,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        if isinstance(temperatures, str) or not isinstance(temperatures, Sequence) or not temperatures:
            raise ConfigError(
                f"distill.method mlkd: temperatures is {temperatures!r}", "Write a list such as [2, 3, 4, 5, 6]."
            )
        positive(self, **{f"temperatures[{i}]": t for i, t in enumerate(temperatures)})
        not_negative(self, ce_weight=ce_weight, kd_weight=kd_weight)
        self.temperatures, self.ce_weight, self.kd_weight = tuple(temperatures), ce_weight, kd_weight

    def terms(self, student: Tensor, teacher: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        instance = batchwise = classwise = student.new_zeros(())
        for temperature in self.temperatures:
            p, q = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
            instance = instance + instance_loss(student, teacher, temperature)
            batchwise = batchwise + gram_loss(p, q)
            classwise = classwise + gram_loss(p.T, q.T)
        w = self.kd_weight
        return {"instance": w * instance, "batch": w * batchwise, "class": w * classwise}
