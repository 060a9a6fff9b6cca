"""A teacher that is an ONNX file: run by ONNX Runtime on the processor, logits only.

It stands where a torch module does; it has no parameters and passes no gradient.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import BackendError, ModelError
from edgekd.profile.backends.ort_cpu import OrtCpuSession

MATRIX_PRODUCTS = ("Conv", "Gemm", "MatMul")


class OnnxNetwork(nn.Module):
    """images [B, C, H, W] -> logits [B, K], on all of torch's threads.

    Raises ModelError when the file is not such a graph with a free batch size, BackendError when ONNX Runtime would run
    it elsewhere.
    """

    def __init__(self, path: Path, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if not path.is_file():
            kind = "is a directory" if path.is_dir() else "does not exist"
            raise ModelError(f"teacher file {path} {kind}", "Name an .onnx file.")
        try:
            self.session = OrtCpuSession(str(path), torch.get_num_threads())
        except BackendError as error:
            raise ModelError(error.what, "Name an .onnx file that ONNX Runtime opens.") from error
        self.path, self.input_shape = path, input_shape
        shapes = [shape for _, shape in self.session.inputs.values()]
        if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][0] is not None:
            raise ModelError(
                f"teacher file {path} has the inputs {shapes}, not one of [batch, C, H, W]",
                "Export it with one input of images and a dynamic batch.",
            )
        fixed = zip(shapes[0][1:], input_shape, strict=True)
        if any(own is not None and own != asked for own, asked in fixed):
            raise ModelError(
                f"teacher file {path} takes images {shapes[0][1:]}, the data's are {input_shape} (C, H, W)",
                "Set teacher.image_size to the size it was exported for.",
            )
        (self.input,) = self.session.inputs

    def forward(self, images: Tensor) -> Tensor:
        logits = next(iter(self.session.infer({self.input: images.contiguous().cpu().numpy()}).values()))
        return torch.from_numpy(logits).to(images.device)

    def cost(self) -> tuple[int, int]:
        """(parameters, multiply-accumulates of one image): float weights, convolutions and matrix products."""
        import onnx

        model = onnx.load(self.path)
        for size, dim in zip((1, *self.input_shape), model.graph.input[0].type.tensor_type.shape.dim, strict=True):
            dim.dim_value = size
        graph = onnx.shape_inference.infer_shapes(model).graph
        shapes = {value.name: list(value.dims) for value in graph.initializer}
        for value in (*graph.value_info, *graph.output):
            shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
        params = sum(math.prod(value.dims) for value in graph.initializer if value.data_type in floats)
        return params, sum(_macs(node, shapes) for node in graph.node if node.op_type in MATRIX_PRODUCTS)


def _macs(node: Any, shapes: dict[str, list[int]]) -> int:
    """Elements of the output times the terms that each sums."""
    made, weight = shapes.get(node.output[0], [0]), shapes.get(node.input[1], [0])
    if node.op_type == "Conv":
        return math.prod(made) * math.prod(weight[1:])
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return math.prod(made) * (weight[-1] if transposed else weight[-2] if len(weight) > 1 else weight[0])
