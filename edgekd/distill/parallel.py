"""One training step by several processes, equal to one process's up to rounding.

Each process runs the networks on its share of the batch. Their outputs are gathered and every process computes the loss
on the whole batch, so relations between samples, memory banks and mixed images are those of one process; gradients are
averaged. BatchNorm normalises by the statistics of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekd import processes
from edgekd.config import TrainConfig
from edgekd.distill.methods._base import Batch, Outputs
from edgekd.errors import ConfigError, ModelError


def check_batch(config: TrainConfig, images: int) -> None:
    """Raises ConfigError unless a batch splits into equal shares: of backward passes, of processes, and of crops."""
    size, parts = min(config.batch_size, images), config.accumulate
    if size % (parts * processes.count()):
        raise ConfigError(
            f"batch_size {size} cannot be split into {parts} parts for {processes.count()} processes",
            "Make it a multiple of accumulate times the number of processes.",
        )
    if size % config.crops:
        raise ConfigError(f"batch_size {size} is not a multiple of crops {config.crops}", "Make it one.")


def share(batch: Batch) -> Batch:
    """This process's rows of the batch."""
    rows = len(batch.labels) // processes.count()
    return batch if processes.count() == 1 else batch[processes.rank() * rows : (processes.rank() + 1) * rows]


def gather(outputs: Outputs) -> Outputs:
    """The whole batch's outputs from every process's share of them."""
    if processes.count() == 1:
        return outputs
    features = outputs.features
    return Outputs(
        _gather(outputs.logits),
        None if features is None else {name: _gather(value) for name, value in features.items()},
        None if outputs.embeddings is None else _gather(outputs.embeddings),
    )


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The mean of all processes' gradients, in one exchange."""
    average([parameter.grad for parameter in parameters if parameter.grad is not None])


def average(values: Sequence[Tensor]) -> None:
    """Each of `values` becomes its mean over the processes, in one exchange."""
    if processes.count() == 1:
        return
    from accelerate.utils import reduce

    flat = reduce(torch.cat([value.flatten() for value in values]), "mean")
    for value, part in zip(values, flat.split([v.numel() for v in values]), strict=True):
        value.copy_(part.view_as(value))


def synchronise_batchnorm(model: nn.Module) -> None:
    """Let every BatchNorm of `model` normalise by the statistics of all processes' samples, in place."""
    if processes.count() == 1:
        return
    from timm.layers.norm_act import BatchNormAct2d

    synchronised = {nn.BatchNorm1d: BatchNorm, nn.BatchNorm2d: BatchNorm, BatchNormAct2d: BatchNormAct}
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            kind = synchronised.get(type(module))
            if kind is None:
                raise ModelError(
                    f"{type(module).__name__} cannot take its statistics over several processes", "Train with one."
                )
            module.__class__ = kind


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the samples of all processes; torch's own synchronised one runs on GPUs only."""

    def _check_input_dim(self, input: Tensor) -> None: ...

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.float()
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        mean = _mean(x.mean(dims))
        centred = x - mean.view(shape)
        variance = _mean(centred.square().mean(dims))
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach(), x.numel() // x.shape[1] * processes.count())
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor, n: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (n / (n - 1)), momentum)


class BatchNormAct(BatchNorm):
    """timm's, with the activation that follows."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = self.act(self.drop(super().forward(input)))
        return out


class _Gather(torch.autograd.Function):
    """Concatenation over the processes.

    All of them go on to the same loss, so this process's share of its gradient is the whole of it; times their number,
    because gradients are averaged after.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        from accelerate.utils import gather

        gathered: Tensor = gather(value.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.chunk(processes.count())[processes.rank()] * processes.count()


class _Mean(torch.autograd.Function):
    """The mean over the processes; each one's value counts in all of them, so gradients are averaged too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        from accelerate.utils import reduce

        mean: Tensor = reduce(value, "mean")
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        from accelerate.utils import reduce

        mean: Tensor = reduce(gradient, "mean")
        return mean


def _gather(value: Tensor) -> Tensor:
    gathered: Tensor = _Gather.apply(value)
    return gathered


def _mean(value: Tensor) -> Tensor:
    mean: Tensor = _Mean.apply(value)
    return mean
