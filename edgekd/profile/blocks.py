"""Layers as a runtime executes them, brought back to the blocks of the network they come from.

An exported graph has no module paths but in the names of its parameters, `layer1.0.conv1.weight`. A node without any
belongs to the last layer before it that has one. Runtimes fuse nodes and write names of their own, in which those of
the graph can be found: ONNX Runtime adds endings to the name of a node or tensor (`relu_nchwc`), TensorRT lists the
nodes (`node_conv2d + node_relu`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd.artifacts import OnnxModel

OTHER = "(of the runtime)"  # copies and changes of layout that the graph does not have
UNKNOWN = "(not known)"  # without the graph, no name can be brought back

_PARAMETER = re.compile(r"^(?P<module>.+)\.(?:weight|bias)(?:_.*)?$")
_WORD = re.compile(r"[\w./:-]+")

Layer = dict[str, Any]


def place(layers: Sequence[Layer], model: OnnxModel) -> list[Layer]:
    """The layers, each with its `block` and its `share` in [0, 1] of their sum."""
    path = Path(model.path)
    known = modules(path) if path.suffix == ".onnx" else None
    total = sum(layer["ms"] for layer in layers) or 1.0
    return [
        {**layer, "block": UNKNOWN if known is None else _block(layer["name"], known), "share": layer["ms"] / total}
        for layer in layers
    ]


def totals(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """{block, ms, share, layers} of every block, in the order in which they run; `layers` is how many there are."""
    found: dict[str, dict[str, Any]] = {}
    for layer in layers:
        row = found.setdefault(layer["block"], {"block": layer["block"], "ms": 0.0, "share": 0.0, "layers": 0})
        row["ms"] += layer["ms"]
        row["share"] += layer["share"]
        row["layers"] += 1
    return list(found.values())


def modules(path: Path) -> dict[str, str]:
    """The module path of every node and of every tensor it makes, by name, as far as parameters tell."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    found: dict[str, str] = {}

    def own(node: Any) -> str | None:
        names = (match["module"] for name in node.input if name in constants and (match := _PARAMETER.match(name)))
        return next(names, None)

    order: dict[str, int] = {}  # of modules, as they first run

    def keep(node: Any, module: str) -> None:
        order.setdefault(module, len(order))
        found.update(dict.fromkeys((name for name in (node.name, *node.output) if name), module))

    users: dict[str, list[Any]] = {}
    without = []
    for node in graph.node:  # in topological order
        for name in node.input:
            users.setdefault(name, []).append(node)
        before = [found[name] for name in node.input if name in found]
        module = own(node) or max(before, key=order.__getitem__, default=None)
        if module is None:
            without.append(node)
        else:
            keep(node, module)
    for node in reversed(without):  # what comes before any parameter belongs to what it feeds
        fed = [output for name in node.output for user in users.get(name, ()) for output in user.output]
        after = next((found[name] for name in fed if name in found), None)
        if after is not None:
            keep(node, after)
    return found


def block_of(module: str) -> str:
    """`layer2.0` of layer2.0.downsample.0, `blocks.3` of blocks.3.attn.qkv, `stem` of stem.conv, `fc` of fc."""
    parts = module.split(".")
    parent = parts[:-1] or parts
    numbered = [i for i, part in enumerate(parent) if part.isdigit()]
    return ".".join(parent[: numbered[-1] + 1] if numbered else parent)


def _block(name: str, known: dict[str, str]) -> str:
    """The block of a runtime's layer; several as `first … last`."""
    words = [name] if name in known else _WORD.findall(name.replace("...", " "))
    found = [module for word in words if (module := _longest(word, known)) is not None]
    blocks = list(dict.fromkeys(map(block_of, found)))
    if not blocks:
        return OTHER
    return blocks[0] if len(blocks) == 1 else f"{blocks[0]} … {blocks[-1]}"


def _longest(word: str, known: dict[str, str]) -> str | None:
    """The module of the longest known name that `word` is, or begins with before `_` or `/`."""
    ends = [len(word), *(i for i in range(len(word) - 1, 0, -1) if word[i] in "_/")]
    return next((known[word[:end]] for end in ends if word[:end] in known), None)
