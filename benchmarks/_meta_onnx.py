"""The ONNX graph of a torch module that is run on the meta device: sizes and operators, but no weights and no time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

OPSET = 18
END = 2**31 - 1


def meta_graph(build: Callable[[], nn.Module], image: tuple[int, int, int]) -> Any:
    """The onnx.ModelProto of a module on one image [C, H, W]; its initializers have sizes alone.

    Raises NotImplementedError for an operator of torch that has no line here.
    """
    with torch.device("meta"):
        module, x = build().eval(), torch.empty(1, *image)
    recorder = _Recorder(x)
    with torch.no_grad(), recorder:
        outputs = module(x)
    return recorder.model([outputs] if isinstance(outputs, Tensor) else list(outputs))


def _unary(kind: str) -> Any:
    return lambda self, y, x, *rest: self._node(kind, y, x)


def _binary(kind: str) -> Any:
    return lambda self, y, a, b, *rest: self._node(kind, y, a, b)


class _Recorder(TorchDispatchMode):
    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.names = {id(x): "images"}
        self.alive = [x]  # an id is a tensor's only as long as it lives
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.infos = [self._info("images", x)]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__.rstrip("_").removeprefix("_")
        if name in ("detach", "empty", "alias"):
            return result
        convert = getattr(self, name, None)
        if convert is None:
            raise NotImplementedError(f"no ONNX operator is known here for aten.{name}")
        before = len(self.nodes)
        self.alive += [t for t in (result if isinstance(result, (tuple, list)) else [result]) if isinstance(t, Tensor)]
        convert(result, *args)
        if len(self.nodes) == before:
            raise NotImplementedError(f"aten.{name} wrote no node")
        return result

    def model(self, outputs: Sequence[Tensor]) -> Any:
        ends = [self._info(self.names[id(tensor)], tensor) for tensor in outputs]
        graph = helper.make_graph(self.nodes, "meta", self.infos[:1], ends, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)

    @staticmethod
    def _info(name: str, tensor: Tensor) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(tensor.shape))

    def _name(self, tensor: Any) -> str:
        """Of a tensor that was computed, else a parameter's: one without numbers."""
        if not isinstance(tensor, Tensor):
            name = f"c{len(self.initializers)}"
            self.initializers.append(helper.make_tensor(name, TensorProto.FLOAT, [], [float(tensor)]))
            return name
        if id(tensor) not in self.names:
            self.alive.append(tensor)
            self.names[id(tensor)] = name = f"w{len(self.initializers)}"
            stub = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=list(tensor.shape))
            stub.data_location = TensorProto.EXTERNAL
            self.initializers.append(stub)
        return self.names[id(tensor)]

    def _integers(self, *values: int) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def _node(self, kind: str, result: Any, *inputs: Any, **attributes: Any) -> None:
        """`inputs` are tensors, numbers, or names of what is there already; so is `result`, or it gets a name."""
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        given = [x if isinstance(x, str) else self._name(x) for x in inputs]  # first: a result may be an input in place
        names = []
        for tensor in results:
            name = tensor if isinstance(tensor, str) else f"t{len(self.nodes)}_{len(names)}"
            if isinstance(tensor, Tensor):
                self.names[id(tensor)] = name
            names.append(name)
        self.nodes.append(helper.make_node(kind, given, names, **attributes))

    def convolution(self, y, x, w, b, stride, padding, dilation, transposed, output_padding, groups) -> None:
        more = {"output_padding": output_padding} if transposed else {}
        kind = "ConvTranspose" if transposed else "Conv"
        given = [x, w] if b is None else [x, w, b]
        self._node(kind, y, *given, strides=stride, pads=list(padding) * 2, dilations=dilation, group=groups, **more)

    def native_batch_norm(self, y, x, weight, bias, mean, var, *rest) -> None:
        self._node("BatchNormalization", y[0], x, weight, bias, mean, var)

    native_batch_norm_legit_no_training = native_batch_norm

    def native_layer_norm(self, y, x, shape, weight, bias, *rest) -> None:
        self._node("LayerNormalization", y[0], x, weight, bias, axis=-len(shape))

    def silu(self, y, x) -> None:
        gate = f"g{len(self.nodes)}"
        self._node("Sigmoid", gate, x)
        self._node("Mul", y, x, gate)

    def gelu(self, y, x, *rest) -> None:
        self._node("Erf", f"e{len(self.nodes)}", x)
        self._node("Mul", y, x, f"e{len(self.nodes) - 1}")

    def mean(self, y, x, dims, keep=False, *rest) -> None:
        self._node("ReduceMean", y, x, self._integers(*dims), keepdims=int(keep))

    def amax(self, y, x, dims=(), keep=False) -> None:
        self._node("ReduceMax", y, x, self._integers(*dims), keepdims=int(keep))

    def sum(self, y, x, dims, keep=False, *rest) -> None:
        self._node("ReduceSum", y, x, self._integers(*dims), keepdims=int(keep))

    def max_pool2d_with_indices(self, y, x, kernel, stride=(), padding=(0, 0), dilation=1, ceil=False) -> None:
        self._pool("MaxPool", y[0], x, kernel, stride, padding, ceil)

    def avg_pool2d(self, y, x, kernel, stride=(), padding=(0, 0), ceil=False, *rest) -> None:
        self._pool("AveragePool", y, x, kernel, stride, padding, ceil)

    def _pool(self, kind, y, x, kernel, stride, padding, ceil) -> None:
        pads = list(padding) * (2 // len(padding))
        window = {"kernel_shape": kernel, "strides": stride or kernel, "pads": pads * 2, "ceil_mode": int(ceil)}
        self._node(kind, y, x, **window)

    def adaptive_avg_pool2d(self, y, x, size) -> None:
        if list(size) == [1, 1]:
            self._node("GlobalAveragePool", y, x)
            return
        if list(size) == list(x.shape[2:]):
            self._node("Identity", y, x)
            return
        window = [-(-old // new) for old, new in zip(x.shape[2:], size, strict=True)]
        stride = [max(1, (old - w) // max(1, new - 1)) for old, new, w in zip(x.shape[2:], size, window, strict=True)]
        self._node("AveragePool", y, x, kernel_shape=window, strides=stride)

    def addmm(self, y, bias, a, b) -> None:
        self._node("Gemm", y, a, b, bias)

    def mm(self, y, a, b) -> None:
        self._node("MatMul", y, a, b)

    bmm = mm

    def softmax(self, y, x, dim, *rest) -> None:
        self._node("Softmax", y, x, axis=dim)

    def cat(self, y, parts, dim=0) -> None:
        self._node("Concat", y, *parts, axis=dim)

    def view(self, y, x, *rest) -> None:
        self._node("Reshape", y, x, self._integers(*y.shape))

    unsafe_view = reshape = squeeze = unsqueeze = view

    def expand(self, y, x, *rest) -> None:
        kind = "Reshape" if x.shape == y.shape else "Expand"
        self._node(kind, y, x, self._integers(*y.shape))

    def permute(self, y, x, order) -> None:
        self._node("Transpose", y, x, perm=[dim % x.ndim for dim in order])

    def transpose(self, y, x, a, b) -> None:
        order = list(range(x.ndim))
        order[a], order[b] = order[b], order[a]
        self._node("Transpose", y, x, perm=order)

    def t(self, y, x) -> None:
        self._node("Transpose", y, x, perm=[1, 0])

    def slice(self, y, x, dim=0, start=None, end=None, step=1) -> None:
        limits = (self._integers(v) for v in (start or 0, END if end is None else end, dim, step))
        self._node("Slice", y, x, *limits)

    def split(self, parts, x, size, dim=0) -> None:
        self._node("Split", parts, x, self._integers(*(part.shape[dim] for part in parts)), axis=dim)

    split_with_sizes = split

    def upsample_nearest2d(self, y, x, size, *rest) -> None:
        self._node("Resize", y, x, "", "", self._integers(*y.shape))

    def constant_pad_nd(self, y, x, pad, value=0):
        before, after = ([0] * (x.ndim - len(pad) // 2) + list(pad[start::2])[::-1] for start in (0, 1))
        self._node("Pad", y, x, self._integers(*before, *after), value)

    def topk(self, y, x, k, dim=-1, *rest) -> None:
        self._node("TopK", y, x, self._integers(k), axis=dim)

    def gather(self, y, x, dim, index, *rest) -> None:
        self._node("GatherElements", y, x, index, axis=dim)

    relu, sigmoid, hardswish, hardsigmoid = map(_unary, ("Relu", "Sigmoid", "HardSwish", "HardSigmoid"))
    hardtanh, leaky_relu, clone, copy = map(_unary, ("Clip", "LeakyRelu", "Identity", "Identity"))
    add, sub, mul, div = map(_binary, ("Add", "Sub", "Mul", "Div"))
