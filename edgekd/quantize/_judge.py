"""What a quantized graph is worth: measured on validation images by the runtime that ships it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.artifacts import ModelSpec
from edgekd.config import QadConfig
from edgekd.data import Dataset
from edgekd.distill.methods.kd import kd_loss
from edgekd.profile import predict
from edgekd.profile.device import Device
from edgekd.tasks.classification import predict_torch, top1


class Judge:
    """`judge(graph)` gives {val_top1, val_kl}; the KL is QAD's own loss, to the teacher and the float student.

    `fp32` holds the same of the float student, which torch computes.
    """

    def __init__(
        self,
        networks: tuple[nn.Module, nn.Module],  # the float student and the teacher, in eval mode
        specs: tuple[ModelSpec, ModelSpec],
        data: Dataset,
        device: Device,
        backend: str,
        config: QadConfig,
    ) -> None:
        self.spec, self.val, self.device, self.backend, self.config = specs[0], data.val, device, backend, config
        own, teacher = (
            predict_torch(network, data.val.images, spec.mean, spec.std)
            for network, spec in zip(networks, specs, strict=True)
        )
        self.student, self.teacher = torch.from_numpy(own), torch.from_numpy(teacher)
        self.fp32 = {"val_top1": top1(own, data.val.labels), "val_kl": self.kl(self.student)}

    def __call__(self, graph: Path) -> dict[str, float]:
        logits = predict(graph, self.val.images, self.spec.mean, self.spec.std, self.device, backend=self.backend)
        return {"val_top1": top1(logits, self.val.labels), "val_kl": self.kl(torch.from_numpy(logits))}

    def kl(self, logits: Tensor) -> float:
        """Of validation logits [N, K]."""
        w, t = self.config.teacher_weight, self.config.temperature
        return float(w * kd_loss(logits, self.teacher, t) + (1 - w) * kd_loss(logits, self.student, t))
