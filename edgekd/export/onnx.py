"""torch -> ONNX: one file, dynamic batch, input `images` [batch, C, H, W], output `logits` [batch, K]."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from torch import nn

from edgekd.catalog import OPSET
from edgekd.export.lower import lower, prove
from edgekd.stage import write_atomic

INPUT, OUTPUT = "images", "logits"
LIMIT = 2**31 - 2**26  # bytes of tensors in one file: protobuf writes no message of 2 GB, and the nodes take some too


def export_fp32(
    model: nn.Module,
    path: Path,
    input_shape: tuple[int, int, int],
    opset: int,
    *,
    finish: Callable[[Any], None] | None = None,
    translations: Mapping[Any, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `model`, taken in eval mode, to `path`; `finish` may edit the onnx.ModelProto before.

    `translations` says how torch operators that the exporter does not know are written, `metadata` what the file says
    of itself. An opset below 18 is rewritten from 18, and both are run on noise: raises ConfigError for an operator
    that has no older form, ParityError where they differ.

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
            opset_version=max(opset, OPSET),
            custom_translation_table=dict(translations or {}),
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    _strip(graph)
    onnx.helper.set_model_props(graph, dict(metadata or {}))
    if finish is not None:
        finish(graph)
    if opset < OPSET:
        with TemporaryDirectory() as directory:
            before, after = Path(directory) / "before.onnx", Path(directory) / path.name
            save(graph, before)
            graph = onnx.load(before)  # where tensors lie beside the file, saving takes them out of the graph
            lower(graph, opset)
            save(graph, after)
            prove(after, before, input_shape)
            graph = onnx.load(after)
    save(graph, path)


def save(model: Any, path: Path, limit: int = LIMIT) -> None:
    """Check an onnx.ModelProto with its shapes and write it; the same content gives the same bytes.

    Tensors of more than `limit` bytes together go to `<path>.data`, and `model` is then left without them.
    """
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= limit:
        onnx.checker.check_model(model, full_check=True)
        write_atomic(path, model.SerializeToString(deterministic=True))
        return
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)  # it would be appended to
    onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name)
    onnx.checker.check_model(path, full_check=True)


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
