"""From teacher specs to targets: one network, several as one, and the same network through ONNX Runtime.

Several teachers give the weighted mean of their logits. With `confidence` the weights are those of CA-MKD for each
image (Zhang et al. 2022, eq. 3): w_m = (1 - exp(L_m) / sum_j exp(L_j)) / (M - 1), where L_m is teacher m's
cross-entropy with the label; the paper weights losses with them, here they weight logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd import processes
from edgekd.artifacts import ModelSpec
from edgekd.catalog import MethodRow
from edgekd.config import DistillConfig
from edgekd.distill.methods._base import Batch, Network, Outputs, Side
from edgekd.distill.targets import LiveTargets, TeacherTargets
from edgekd.errors import ConfigError
from edgekd.models import build_model, cost
from edgekd.models.onnx import OnnxNetwork
from edgekd.models.taps import Tapped
from edgekd.progress import Progress

WORTH_EXPORTING = 10**12  # multiply-accumulates of a pass, minutes on a core; an export takes seconds
OPSET = 18


class Ensemble:
    """Several teachers as one, logits only; `weights` None for equal ones, `confident` for CA-MKD's."""

    def __init__(self, teachers: Sequence[LiveTargets], weights: Sequence[float] | None, confident: bool) -> None:
        self.teachers, self.confident = teachers, confident
        shares = torch.tensor(weights or [1.0] * len(teachers))
        self.weights = (shares / shares.sum())[:, None]  # [M, 1]

    def __call__(self, batch: Batch) -> Outputs:
        logits = torch.stack([teacher(batch).logits for teacher in self.teachers])  # [M, B, K]
        weights = confidence(logits, batch) if self.confident else self.weights.to(logits.device)
        return Outputs((weights[..., None] * logits).sum(0))


def confidence(logits: Tensor, batch: Batch) -> Tensor:
    """CA-MKD's weights [M, B] of logits [M, B, K]; they sum to 1 over the teachers."""
    losses = torch.stack([_cross_entropy(rows, batch) for rows in logits])
    return (1 - losses.softmax(0)) / (len(logits) - 1)


def _cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    loss = F.cross_entropy(logits, batch.labels, reduction="none")
    if batch.partners is None:
        return loss
    return batch.mix * loss + (1 - batch.mix) * F.cross_entropy(logits, batch.partners, reduction="none")


def live_targets(
    teachers: Sequence[ModelSpec], row: MethodRow, config: DistillConfig, device: torch.device, export: Export | None
) -> tuple[TeacherTargets, Side | None]:
    """Targets that run the teachers, and what a dry run says of one where the method asks for more than logits.

    With `export` big networks on a CPU run in ONNX Runtime: a float CNN takes two thirds of torch's time there. Raises
    ConfigError where features are asked of several teachers or of an ONNX file, ModelError from building them.
    """
    asked = row.asks("teacher")
    wanted = [need for need, yes in asked.items() if yes] + ["network"] * ("network" in row.needs)
    more = " and ".join(wanted)
    files = [spec.name for spec in teachers if spec.source == "onnx"]
    if more and (len(teachers) > 1 or files):
        have = f"{files[0]} is an ONNX file with logits only" if files else f"{len(teachers)} teachers give logits only"
        raise ConfigError(
            f"distill.method: {row.name} needs the teacher's {more}, and {have}",
            "Name one torch teacher, or set distill.method to one that needs logits only.",
        )
    if config.weights is not None and len(config.weights) != len(teachers):
        raise ConfigError(
            f"distill.weights: {len(config.weights)} weights for {len(teachers)} teachers", "Give one a teacher."
        )
    sides, targets = [], []
    for spec in teachers:
        net = build_model(spec).requires_grad_(False)
        if export is not None and not more and device.type == "cpu" and spec.source != "onnx":
            net = export.run(net, spec)
        net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        watched = Tapped(net, spec.input_shape, taps=config.taps.teacher, whose="teacher", **asked)
        sides.append(watched.side)
        network = Network(net, spec.mean, spec.std, spec.input_shape) if "network" in row.needs else None
        targets.append(LiveTargets(watched, spec.mean, spec.std, network))
    if len(targets) == 1:
        return targets[0], sides[0] if more else None
    return Ensemble(targets, config.weights, config.ensemble == "confidence"), None


@dataclass(frozen=True)
class Export:
    """A pass of teachers over `images`, their graphs written under `out` where that pays."""

    out: Path
    images: int
    progress: Progress

    def run(self, net: nn.Module, spec: ModelSpec) -> nn.Module:
        """`net`, or the same in ONNX Runtime; which is decided by the work, so that two runs decide alike."""
        if cost(net, spec.input_shape).macs * self.images < WORTH_EXPORTING:
            return net
        from edgekd.export.onnx import export_fp32

        path = self.out / f"{spec.fingerprint()[:16]}.onnx"
        if processes.rank() == 0 and not path.exists():
            self.out.mkdir(parents=True, exist_ok=True)
            try:
                export_fp32(net, path, spec.input_shape, OPSET)
            except Exception as error:  # the exporter's own, of many kinds
                self.progress.note(f"teacher {spec.name} runs in torch, its ONNX export failed: {type(error).__name__}")
        processes.wait()
        return OnnxNetwork(path, spec.input_shape) if path.exists() else net
