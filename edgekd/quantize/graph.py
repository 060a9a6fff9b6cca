"""From a float model to a graph with fake quantizers, and from that to the ONNX file that ships.

BatchNorm is folded into the convolutions before anything is quantized, so the graph that calibrates and trains has the
weights, and the scales, of the graph that ships; its last bits do not hang on a batch's statistics.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgekd.artifacts import Checkpoint
from edgekd.catalog import OPSET, SCHEMES
from edgekd.errors import ModelError, RunError
from edgekd.export.onnx import export_fp32
from edgekd.models import build_model, read_state
from edgekd.quantize._fake import ActivationFakeQuantize, WeightFakeQuantize
from edgekd.quantize._torchao import prepare_pt2e
from edgekd.quantize.calibrators import CALIBRATORS
from edgekd.quantize.schemes._base import Scheme
from edgekd.quantize.schemes._onnx import float_weights


def prepare(model: nn.Module, input_shape: tuple[int, int, int], scheme: Scheme) -> GraphModule:
    """`model` in eval mode as an exported graph, BatchNorm folded, with fake quantizers that calibrate.

    Raises ModelError, with the line of the network's code, where torch.export cannot trace it.
    """
    images = torch.zeros(2, *input_shape).contiguous(memory_format=torch.channels_last)
    try:
        program = torch.export.export(model.eval(), (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # whatever the network's own code raises under tracing
        raise ModelError(
            f"{type(model).__name__} cannot be traced: {str(error).strip().splitlines()[0]}; {_stopped_at(error)}",
            "Its forward must be the same for every image: no branches on values, no conversion to Python numbers.",
        ) from error
    prepared: GraphModule = prepare_pt2e(program.module(), scheme)
    for parameter in prepared.parameters():
        parameter.requires_grad_(True)
    return prepared


def _stopped_at(error: Exception) -> str:
    """The innermost line of the network's own code that the error came through."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    if not frames:
        return "torch.export names no line"
    last = frames[-1]
    return f"torch.export stopped at {last.filename}:{last.lineno}: {last.line}"


@torch.no_grad()
def calibrate(prepared: GraphModule, batches: Iterable[Tensor], calibrator: str = "mse") -> None:
    """Observe `batches` ([B, C, H, W] each), then freeze the ranges. Raises RunError on a range that is not finite."""
    for quantizer in quantizers(prepared):
        if isinstance(quantizer, ActivationFakeQuantize):
            quantizer.observe(CALIBRATORS[calibrator])
    for images in batches:
        prepared(images)
    for quantizer in quantizers(prepared):
        if isinstance(quantizer, ActivationFakeQuantize):
            quantizer.freeze()
            if not bool(torch.isfinite(quantizer.scale).all()):
                raise RunError(
                    f"calibration found activations of scale {quantizer.scale.item()}",
                    "The student computes values that are not finite: distill it again with a lower distill.lr.",
                )


@torch.no_grad()
def state_of(prepared: GraphModule, images: Tensor) -> dict[str, Tensor]:
    """The state dict, copied, with the scales of the weights as they are: a forward over `images` sets them."""
    prepared(images)
    return {key: value.detach().cpu().clone().contiguous() for key, value in prepared.state_dict().items()}


def quantizers(prepared: GraphModule) -> list[ActivationFakeQuantize | WeightFakeQuantize]:
    """Every fake quantizer of a prepared graph, once."""
    return [m for m in prepared.modules() if isinstance(m, ActivationFakeQuantize | WeightFakeQuantize)]


def restore(prepared: GraphModule, state: dict[str, Tensor]) -> None:
    """Load the state dict of a calibrated graph of the same model and scheme."""
    for name, quantizer in prepared.named_modules():
        if isinstance(quantizer, ActivationFakeQuantize | WeightFakeQuantize):
            quantizer.fix(state[f"{name}.scale"].clone(), state[f"{name}.zero_point"].clone())
    prepared.load_state_dict(state)


def rebuild(checkpoint: Checkpoint) -> GraphModule:
    """The calibrated graph of a quantized checkpoint. Raises ModelError when the file is another model's."""
    with torch.random.fork_rng():
        network = build_model(replace(checkpoint.spec, weights=None))
        prepared = prepare(network, checkpoint.spec.input_shape, scheme_of(checkpoint))
    try:
        restore(prepared, read_state(checkpoint.weights))
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            f"{checkpoint.weights} does not fit {checkpoint.spec.name}: {error}", "Quantize the student again."
        ) from error
    return prepared


def scheme_of(checkpoint: Checkpoint) -> Scheme:
    """The scheme a checkpoint was quantized with. Raises ModelError for a float one."""
    if checkpoint.scheme not in SCHEMES:
        raise ModelError(
            f"{checkpoint.path} has the quantization scheme {checkpoint.scheme!r}",
            "Name a checkpoint that quantize wrote.",
        )
    scheme: Scheme = SCHEMES[checkpoint.scheme].load()(**checkpoint.scheme_options)
    return scheme


def convert(checkpoint: Checkpoint) -> GraphModule:
    """The torch graph of integers and Q/DQ that ONNX receives: images [B, C, H, W] -> logits [B, K]."""
    return scheme_of(checkpoint).convert(rebuild(checkpoint))


def export_quantized(
    checkpoint: Checkpoint, path: Path, opset: int, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the graph of a quantized checkpoint to the ONNX file `path`. Raises ModelError for a float one."""
    scheme, shape = scheme_of(checkpoint), checkpoint.spec.input_shape
    old_tensorrt = opset < OPSET and SCHEMES[str(checkpoint.scheme)].runtime == "tensorrt"

    def finish(model: Any) -> None:
        scheme.finish(model)
        if old_tensorrt:
            float_weights(model)

    graph = scheme.convert(rebuild(checkpoint))
    export_fp32(graph, path, shape, opset, finish=finish, translations=scheme.translations, metadata=metadata)
