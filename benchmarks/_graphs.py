"""Graphs that benchmarks compare: any network quantized by a scheme, its engines, latencies of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.artifacts import OnnxModel
from edgekd.catalog import OPSET, SCHEMES
from edgekd.export import export_fp32
from edgekd.export.tensorrt import BUILDERS, BuildRequest, Built, build, read_graph
from edgekd.profile import measure_all
from edgekd.profile.devices import load_device
from edgekd.quantize.graph import calibrate, prepare

Shape = tuple[int, int, int]

FASTER = 0.95  # of another latency: two measurements of one graph differ by a twentieth
TARGETS = {75: "t4", 80: "a100-40gb", 86: "rtx-3060", 89: "rtx-4090", 120: "rtx-5090"}  # one a compute capability


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
    opset = max(OPSET, row.least_opset)
    export_fp32(graph, path, shape, opset, finish=quantizer.finish, translations=quantizer.translations)


def engine(graph: Path, sm: int, plan: Path | None = None) -> Built:
    """TensorRT-RTX's engine at batch 1 for a GPU of sm_`sm`, in `plan` or beside the graph."""
    device, plan = load_device(TARGETS[sm]), plan or graph.with_suffix(".engine")
    request = BuildRequest(graph=read_graph(graph), compute_capability=sm)
    if request.shapes(1):
        request = replace(request, batch=(1, 1, 1))
    return build(request, device, BUILDERS["tensorrt-rtx"], plan, plan.with_suffix(".log"))


def latencies(graphs: Mapping[str, Path], shape: Shape, runs: int) -> tuple[dict[str, float], list[str]]:
    """p50 in ms of each at batch 1 on one thread, all in turns in one process; and the warnings about how it went."""
    models = [OnnxModel(str(path), name, "any", 0, shape) for name, path in graphs.items()]
    reports = measure_all(models, load_device("x86-cpu"), runs=runs)
    warnings = {warning for report in reports for warning in report.conditions["warnings"]}
    return {report.artifact: report.summary()["p50_ms"] for report in reports}, sorted(warnings)
