"""torch -> ONNX: one file, dynamic batch, input `images` [batch, C, H, W], output `logits` [batch, K]."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from edgekd.stage import write_atomic

INPUT, OUTPUT = "images", "logits"


def export_fp32(
    model: nn.Module,
    path: Path,
    input_shape: tuple[int, int, int],
    opset: int,
    *,
    finish: Callable[[Any], None] | None = None,
    translations: Mapping[Any, Any] | None = None,
) -> None:
    """Write `model`, taken in eval mode, to `path`; `finish` may edit the onnx.ModelProto before.

    `translations` says how torch operators that the exporter does not know are written.

    The same weights give the same bytes. The file names neither source files nor directories of this machine.
    """
    images = torch.zeros(2, *input_shape)
    if isinstance(model, torch.fx.GraphModule):
        model.training = False  # an exported graph has its mode built in and refuses eval()
    else:
        model.eval()
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=opset,
            custom_translation_table=dict(translations or {}),
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    _strip(graph)
    if finish is not None:
        finish(graph)
    onnx.checker.check_model(graph)
    write_atomic(path, graph.SerializeToString(deterministic=True))


def _strip(model: Any) -> None:
    """Drop what takes a small net's room and nobody needs.

    The exporter's notes hold stack traces with this machine's paths, and shapes of inner tensors, which every runtime
    infers by itself, are a tenth of the file of a thin ResNet-20.
    """
    graph = model.graph
    graph.ClearField("value_info")
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about itself; warnings about the model pass."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.utils._pytree")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=category, module=r"(torch|onnxscript|onnx_ir|copyreg)(\.|$)")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
