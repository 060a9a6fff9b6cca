"""What TensorRT can fuse of a Q/DQ graph, read from the graph: engines say what they execute on a GPU alone."""

from __future__ import annotations

from typing import Any

from edgekd.quantize.lint.rules import DQ, WEIGHTED, Graph, Q

FUSED = {"Relu", "Clip", "Add", "BatchNormalization", "MaxPool"}  # with a quantized layer before them
MOVES = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Pad", "Concat", "Identity", "Cast"}


def counts(model: Any) -> dict[str, tuple[int, int]]:
    """How many convolutions, linear layers and additions of activations have their Q/DQ, of how many there are."""
    graph = Graph(model)
    kinds = {"conv": ("Conv", "ConvTranspose"), "gemm": ("Gemm", "MatMul")}
    found = {}
    for kind, operators in kinds.items():
        nodes = [node for node in graph.weighted() if node.op_type in operators]
        found[kind] = (sum(_whole(graph, node) for node in nodes), len(nodes))
    additions = [n for n in graph.nodes if n.op_type == "Add" and not any(name in graph.tensors for name in n.input)]
    found["add"] = (sum(graph.quantized(node) for node in additions), len(additions))
    return found


def islands(model: Any) -> list[list[str]]:
    """Connected float operators that no quantized layer takes into its kernel: the operators of each."""
    graph = Graph(model)
    groups: dict[str, list[Any]] = {}  # of every float tensor: the nodes it is connected with
    for node in graph.nodes:
        if node.op_type in (Q, DQ):
            continue
        inputs = [n for n in node.input if n in groups and not graph._is(graph.maker.get(n), DQ)]
        whole: list[Any] = []
        for part in {id(groups[name]): groups[name] for name in inputs}.values():
            whole += part
            groups = {name: whole if nodes is part else nodes for name, nodes in groups.items()}
        whole.append(node)
        groups |= dict.fromkeys(node.output, whole)
    found = []
    for nodes in {id(nodes): nodes for nodes in groups.values()}.values():
        quantized = any(_whole(graph, node) for node in nodes)
        left = [n.op_type for n in nodes if not _whole(graph, n) and not (quantized and n.op_type in FUSED)]
        if set(left) - MOVES:
            found.append(left)
    return found


def _whole(graph: Graph, node: Any) -> bool:
    """Whether both sides of a weighted layer are quantized."""
    return node.op_type in WEIGHTED and all(graph.dequantizer(node, place) is not None for place in (0, 1))
