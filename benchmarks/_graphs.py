"""Graphs that benchmarks compare: any network quantized by a scheme, and the latencies of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.artifacts import OnnxModel
from edgekd.catalog import SCHEMES
from edgekd.export import export_fp32
from edgekd.profile import measure_all
from edgekd.profile.devices import load_device
from edgekd.quantize.graph import calibrate, prepare

Shape = tuple[int, int, int]


@torch.no_grad()
def settled(network: nn.Module, images: Tensor) -> nn.Module:
    """A network of random weights whose BatchNorms have seen `images` [B, C, H, W]: its activations keep their size."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all that it sees
            nn.init.ones_(module.weight)  # some start at 0, and a convolution of zeros is folded from it
    network.train()(images)
    return network.eval()


def export_ptq(
    network: nn.Module, batches: Sequence[Tensor], scheme: str, path: Path, options: Mapping[str, Any] | None = None
) -> None:
    """Calibrate `network` on `batches` of [B, C, H, W] and write its quantized graph; `options` are the scheme's."""
    row = SCHEMES[scheme]
    quantizer = row.load()(**(options or {}))
    shape: Shape = tuple(batches[0].shape[1:])  # type: ignore[assignment]
    prepared = prepare(network, shape, quantizer)
    calibrate(prepared, batches)
    graph = quantizer.convert(prepared)
    export_fp32(graph, path, shape, row.opset, finish=quantizer.finish, translations=quantizer.translations)


def latencies(graphs: Mapping[str, Path], shape: Shape, runs: int) -> tuple[dict[str, float], list[str]]:
    """p50 in ms of each at batch 1 on one thread, all in turns in one process; and the warnings about how it went."""
    models = [OnnxModel(str(path), name, "any", 0, shape) for name, path in graphs.items()]
    reports = measure_all(models, load_device("x86-cpu"), runs=runs)
    warnings = {warning for report in reports for warning in report.conditions["warnings"]}
    return {report.artifact: report.summary()["p50_ms"] for report in reports}, sorted(warnings)
