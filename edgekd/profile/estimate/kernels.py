"""The kernels that TensorRT makes of an ONNX graph, with what each of them computes and moves.

What fuses is by NVIDIA's TensorRT documentation ("Types of Fusions"): element-wise operators join the convolution,
matrix product or element-wise kernel whose output they take, a residual addition the later of its two terms; BatchNorm
and biases are element-wise; Q/DQ and what only renames memory cost nothing. A concatenation costs nothing either: what
makes its parts writes them in place. Attention is not taken as one kernel, which newer versions do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from edgekd.describe.onnx import DQ, STANDARD, Q, load
from edgekd.errors import ModelError

Kind = Literal["matrix", "grouped", "move"]

POINTWISE = frozenset(
    "Abs Add BatchNormalization Cast Ceil Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid "
    "HardSwish LeakyRelu Less LessOrEqual Log Max Min Mish Mod Mul Neg Not PRelu Pow Reciprocal Relu Round Selu "
    "Sigmoid Sign Sin Softplus Softsign Sqrt Sub Swish Tanh ThresholdedRelu Where".split()
)
PASSES = frozenset(  # over a whole tensor, each a kernel of its own
    "ArgMax AveragePool CumSum DepthToSpace Expand Gather GatherElements GatherND GlobalAveragePool GlobalMaxPool "
    "GroupNormalization InstanceNormalization LRN LayerNormalization LogSoftmax LpNormalization MaxPool Pad "
    "RMSNormalization ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Resize ScatterElements ScatterND "
    "Slice Softmax SpaceToDepth Split Tile TopK Transpose Upsample".split()
)
RENAMES = frozenset(["Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze", Q, DQ])
PARTS = ("Split", "Slice", "Gather", "GatherElements", "GatherND")  # read no more than they write
FLOAT16 = 10  # of onnx.TensorProto
FEW = 16  # channels a group; below, tensor cores are of no use


@dataclass
class Kernel:
    """One launch. Sizes are for the whole batch; bytes follow from numbers once a precision is chosen.

    `matrix` is a convolution or product, a `grouped` one sums over few channels, `move` does next to no arithmetic.
    `int8` says that it multiplies what Q/DQ made integers.
    """

    name: str
    kind: Kind
    operators: list[str]
    macs: int = 0
    numbers: int = 0  # activations read and written
    quantized: int = 0  # of them, those that are kept in INT8
    weights: int = 0  # numbers of its constants
    int8: bool = False


@dataclass(frozen=True)
class Network:
    """The kernels in the order they run, and what tells whether networks like it were fitted."""

    kernels: tuple[Kernel, ...]
    image: tuple[int, ...]  # the first input, with the batch
    stored: str  # fp32 | fp16 | int8: what the file computes in
    operators: Mapping[str, int]  # how many there are, those that compute number by number under one name

    @property
    def macs(self) -> int:
        return sum(kernel.macs for kernel in self.kernels)


def read_network(path: Path, batch: int = 1) -> Network:
    """The kernels of an ONNX file at a batch size; external weights are not read. Raises ModelError.

    A dynamic first dimension of an input becomes `batch`; where it is fixed it has to be that.
    """
    return network(load(path), batch, str(path))


def network(model: Any, batch: int = 1, name: str = "the graph") -> Network:
    """The kernels of an onnx.ModelProto, which is changed: its batch is set and its functions are inlined."""
    import onnx
    import onnx.inliner

    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    foreign = Counter(node.op_type for node in model.graph.node if node.domain not in STANDARD)
    if foreign:
        raise ModelError(
            f"{name}: {', '.join(foreign)} are operators of another domain, whose cost is not known",
            "Export it with operators of ONNX alone.",
        )
    _refuse_formats(model.graph, name)
    _set_batch(model, batch, name)
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split("\n")[:2])  # the rest follows from it
        raise ModelError(
            f"{name}: shapes do not fit at batch {batch}: {reason}", "Check it with onnx.checker."
        ) from None
    return _Reader(model.graph, name).network()


def _refuse_formats(graph: Any, name: str) -> None:
    from onnx import TensorProto

    known = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32)
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    zeros = (node.input[2] for node in graph.node if node.op_type in (Q, DQ) and len(node.input) > 2)
    others = {TensorProto.DataType.Name(types[zero]) for zero in zeros if types.get(zero, known[0]) not in known}
    if others:
        raise ModelError(
            f"{name}: its Q/DQ is {' and '.join(sorted(others))}; no latency of such an engine was there to fit to",
            "Estimate the INT8 or FP16 graph, or measure on the device.",
        )


def _set_batch(model: Any, batch: int, name: str) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in constants or not dims:
            continue
        if dims[0].dim_value and dims[0].dim_value != batch:
            raise ModelError(
                f"{name}: its input {value.name} is for batch {dims[0].dim_value}, not {batch}",
                "Name that batch, or export with a dynamic one.",
            )
        dims[0].dim_value = batch
        if not all(dim.dim_value for dim in dims):
            raise ModelError(
                f"{name}: the size of its input {value.name} is open", "Export it with the image size it is used at."
            )
    stale = [*model.graph.value_info] if batch != 1 else []  # stated for another batch, perhaps
    for value in stale:
        model.graph.value_info.remove(value)
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].dim_value:
            dims[0].dim_value = batch


class _Reader:
    """One pass over the nodes in their order. A tensor that is only renamed goes by its root: what it was made as."""

    def __init__(self, graph: Any, name: str) -> None:
        self.name = name
        self.nodes = list(graph.node)
        self.sizes = _sizes(graph)
        self.constants = {tensor.name for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.constants]
        self.outputs = {value.name for value in graph.output}
        self.floats = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}
        self.makers = {tensor: node for node in self.nodes for tensor in node.output}
        self.consumers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for tensor in node.input:
                self.consumers.setdefault(tensor, []).append(node)
        self.kernels: list[Kernel] = []
        self.roots: dict[str, tuple[str, ...]] = {tensor: (tensor,) for tensor in self.inputs}
        self.made: dict[str, int] = dict.fromkeys(self.inputs, -1)  # root -> the kernel that writes it
        self.reads: list[dict[str, int]] = []  # of each kernel: root -> numbers
        self.runs: dict[int, int] = {}  # id of a node -> its kernel
        self.joined: set[str] = set()  # roots that lie in the memory of a concatenation

    def network(self) -> Network:
        for node in self.nodes:
            self._take(node)
        self._count_writes()
        if not self.kernels:
            raise ModelError(f"{self.name} has no operator that takes time", "Name a network.")
        quantized = any(node.op_type == DQ for node in self.nodes)
        stored = "int8" if quantized else "fp16" if FLOAT16 in self.floats else "fp32"
        kinds = (_family(node.op_type) for node in self.nodes if id(node) in self.runs)
        return Network(tuple(self.kernels), self._shape(self.inputs[0]), stored, Counter(kinds))

    def _take(self, node: Any) -> None:
        op, moving = node.op_type, [t for t in node.input if t and t not in self.constants]
        if not moving or op in ("Shape", "Size"):  # known before the first image
            self.constants.update(node.output)
        elif op in RENAMES:
            if self._count(moving[0]) != self._count(node.output[0]):
                raise ModelError(
                    f"{self.name}: {op} ({node.name or node.output[0]}) is fixed to another batch",
                    "Name the batch it was exported with, or export with a dynamic one.",
                )
            self.roots[node.output[0]] = self.roots[moving[0]]
        elif op == "Concat":
            self._concat(node, moving)
        elif op in POINTWISE:
            place = self._grown(node, moving)
            self._run(node, moving, self._new(node, "move") if place is None else place)
        elif op in PASSES:
            for output in node.output:  # a Split is as many kernels as parts
                if output:
                    self._run(node, moving, self._new(node, "move"), output)
        elif op in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            self._run(node, moving, self._new(node, "matrix"))
            self._product(node, self.kernels[-1])
        else:
            raise ModelError(
                f"{self.name}: what {op} ({node.name or node.output[0]}) costs is not known",
                "Leave it out of the graph, or measure on the device; `edgekd build --dry-run` writes how.",
            )

    def _new(self, node: Any, kind: Kind) -> int:
        self.kernels.append(Kernel(node.name or node.output[0], kind, []))
        self.reads.append({})
        return len(self.kernels) - 1

    def _run(self, node: Any, moving: list[str], place: int, output: str = "") -> None:
        """`node`, or its one `output`, becomes part of kernel `place`."""
        kernel, reads = self.kernels[place], self.reads[place]
        kernel.operators.append(node.op_type)
        self.runs[id(node)] = place
        for tensor in node.output if not output else [output]:
            if tensor:
                self.roots[tensor] = (tensor,)
                self.made[tensor] = place
        written = self._count(output or node.output[0])
        for tensor in moving:
            for root in self.roots[tensor]:
                if self.made[root] != place:
                    reads[root] = min(written, self._count(root)) if node.op_type in PARTS else self._count(root)
        kernel.weights += sum(prod(self.sizes[t]) for t in node.input if t in self.constants and self.sizes.get(t))

    def _grown(self, node: Any, moving: list[str]) -> int | None:
        """The kernel that computes `node` on the way, or None."""
        size = self._count(node.output[0])
        last = max((self.made[root] for tensor in moving for root in self.roots[tensor]), default=-1)
        if last < 0 or not self._grows(self.kernels[last]):
            return None
        for tensor in moving:
            roots = self.roots[tensor]
            if last in (self.made[root] for root in roots):
                # Everybody who wants this tensor has to be element-wise too, else it is written before it is used.
                whole = len(roots) == 1 and self._count(roots[0]) == size
                if not whole or not all(reader.op_type in POINTWISE for reader in self._readers(roots[0])):
                    return None
        return last

    @staticmethod
    def _grows(kernel: Kernel) -> bool:
        return kernel.kind != "move" or kernel.operators[-1] in POINTWISE

    def _readers(self, tensor: str) -> list[Any]:
        found: list[Any] = []
        for node in self.consumers.get(tensor, ()):
            found += self._readers(node.output[0]) if node.op_type in RENAMES else [node]
        return found

    def _concat(self, node: Any, moving: list[str]) -> None:
        """Each part is written in place by who makes it, but for those that lie somewhere else already: copied."""
        found: list[str] = []
        for tensor in moving:
            for root in self.roots[tensor]:
                if root in self.joined or self.made[root] < 0:
                    place = self._new(node, "move")
                    self.kernels[place].operators.append("Concat")
                    copy = f"{root} in {node.output[0]}"
                    self.sizes[copy] = self.sizes[root]
                    self.reads[place][root] = self._count(root)
                    self.made[copy] = place
                    root = copy
                self.joined.add(root)
                found.append(root)
        self.roots[node.output[0]] = tuple(found)

    def _product(self, node: Any, kernel: Kernel) -> None:
        out, left, right = (self._shape(t) for t in (node.output[0], *node.input[:2]))
        attributes = {a.name: a.i for a in node.attribute}
        if node.op_type == "Conv":
            kernel.macs = prod(out) * prod(right[1:])
        elif node.op_type == "ConvTranspose":
            kernel.macs = prod(left) * prod(right[1:])
        else:
            kernel.macs = prod(out) * (left[0] if attributes.get("transA") else left[-1])
        groups = attributes.get("group", 1)
        if groups > 1 and left[1] // groups < FEW:
            kernel.kind = "grouped"
        kernel.int8 = all(self._dequantized(tensor) for tensor in node.input[:2])

    def _dequantized(self, tensor: str) -> bool:
        """Whether it comes out of a DequantizeLinear, perhaps renamed or transposed since."""
        made = self.makers.get(tensor)
        while made is not None and made.op_type in ("Transpose", *RENAMES - {DQ}):
            made = self.makers.get(made.input[0])
        return made is not None and made.op_type == DQ

    def _count_writes(self) -> None:
        """Numbers read by each kernel, and written where anybody else wants them."""
        wanted = {root for tensor in self.outputs for root in self.roots.get(tensor, ())}
        in_int8 = {root for root in self.made if any(n.op_type == Q for n in self.consumers.get(root, ()))}
        for reads in self.reads:
            wanted |= set(reads)
        for place, reads in enumerate(self.reads):
            for root, count in reads.items():
                self._move(place, count, root in in_int8)
        for root, place in self.made.items():
            if place >= 0 and root in wanted:
                self._move(place, self._count(root), root in in_int8)

    def _move(self, place: int, count: int, quantized: bool) -> None:
        self.kernels[place].numbers += count
        self.kernels[place].quantized += count if quantized else 0

    def _shape(self, tensor: str) -> tuple[int, ...]:
        if tensor not in self.sizes:
            raise ModelError(
                f"{self.name}: the size of {tensor} cannot be inferred",
                "Export with fixed sizes, or simplify the graph.",
            )
        return self.sizes[tensor]

    def _count(self, tensor: str) -> int:
        return prod(self._shape(tensor))


def _family(op: str) -> str:
    """Operators that cost alike have one name."""
    return "element-wise operators" if op in POINTWISE else {"GlobalAveragePool": "ReduceMean"}.get(op, op)


def _sizes(graph: Any) -> dict[str, tuple[int, ...]]:
    """The sizes of all tensors whose every dimension is known."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = value.type.tensor_type.shape
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in shape.dim):
            sizes[value.name] = tuple(dim.dim_value for dim in shape.dim)
    return sizes
