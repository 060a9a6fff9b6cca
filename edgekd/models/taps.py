"""Feature taps: where a network is listened to, found by a dry run of it.

Default taps of a CNN are its stages' ends: the last module output of every spatial resolution. Only what shrinks the
map by more than one halving is looked into, so a tap is the output of a whole block, never the inside of the next
stage's first. Those of a vision transformer are four evenly spaced blocks. Embeddings are the input of the classifier,
the linear layer that makes the logits; where they are made of several heads, as a distilled DeiT's, of the last head.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import ConfigError, ModelError

BLOCKS = 4  # taps of a transformer: as many as a CNN usually has stages

Shape = tuple[int, ...]  # of a map (C, H, W) or of tokens (N, C)


@dataclass(frozen=True)
class Outputs:
    """What a network gives: logits [B, K]; feature maps by tap and embeddings [B, D] where a method asks for them."""

    logits: Tensor
    features: Mapping[str, Tensor] | None = None
    embeddings: Tensor | None = None


@dataclass(frozen=True)
class Side:
    """What a dry run of one image says of a network: everything an adapter needs to be built.

    `shapes` are those of the tapped features without the batch, in the order the data meets them: maps (C, H, W) or
    tokens (N, C). `classifier(embeddings)` gives the logits, or one head's share of them. A network without a linear
    classifier has `embedding` 0, and is refused before a row that needs embeddings sees it.
    """

    shapes: Mapping[str, tuple[int, ...]]
    embedding: int
    classifier: nn.Module


class Tapped:
    """`tapped(images)` runs `model` and gives its Outputs, in float32, with what was asked for and nothing else hooked.

    `taps` names the modules to listen to; None takes the default ones. Maps in channels-last order (Swin) come out as
    [B, C, H, W]. `whose` is the config key that a ConfigError names. Raises ConfigError for a tap that does not exist
    or gives no features, ModelError where embeddings are asked of a network without a linear classifier.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, int, int],
        *,
        features: bool = False,
        embeddings: bool = False,
        taps: Sequence[str] | None = None,
        whose: str = "student",
    ) -> None:
        trace = _dry_run(model, input_shape)
        self.model, self.embeddings = model, embeddings
        self.run: Callable[[Tensor], Tensor] = model
        names = [] if not features else trace.default_taps() if taps is None else trace.named_taps(taps, whose)
        self._channels_last = {name: trace.last[name].channels_last for name in names}
        shapes = {name: trace.last[name].made for name in names}
        if embeddings and trace.classifier is None:
            raise ModelError(
                f"{type(model).__name__} ({whose}) has no linear layer that makes its logits, hence no embeddings",
                "Set distill.method to one that needs logits only; `edgekd methods` lists them.",
            )
        width = 0 if trace.classifier is None else trace.classifier.in_features
        self.side = Side(shapes, width, nn.Identity() if trace.classifier is None else trace.classifier)
        self._kept: dict[str, Tensor] = {}
        self._hooked = False

    def __call__(self, images: Tensor) -> Outputs:
        if not self._hooked:  # not before: a copy of the model made until now has no hooks
            self._hook()
        logits = self.run(images)
        kept, features = self._kept, None
        if self._channels_last:
            features = {
                name: (kept[name].permute(0, 3, 1, 2) if last else kept[name]).float()
                for name, last in self._channels_last.items()
            }
        embeddings = kept[""].float() if self.embeddings else None
        kept.clear()
        return Outputs(logits.float(), features, embeddings)

    def _hook(self) -> None:
        kept, modules = self._kept, dict(self.model.named_modules())

        def keep(name: str) -> Callable[..., None]:
            return lambda _module, _inputs, output: kept.__setitem__(name, output)

        for name in self._channels_last:
            modules[name].register_forward_hook(keep(name))
        if self.embeddings:
            self.side.classifier.register_forward_pre_hook(lambda _module, inputs: kept.__setitem__("", inputs[0]))
        self._hooked = True


def default_taps(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, Shape]:
    """The default taps of `model` in order, and the shape of their features without the batch. Raises ModelError."""
    trace = _dry_run(model, input_shape)
    return {name: trace.last[name].made for name in trace.default_taps()}


@dataclass(frozen=True)
class _Call:
    """A module's last call: its input's and output's features, () where it is something else."""

    name: str
    kind: type
    given: Shape
    made: Shape
    channels_last: bool
    leaf: bool


@dataclass(frozen=True)
class _Trace:
    """What a dry run saw: calls in the order they ended, how often each module was called, and the classifier."""

    network: str
    names: Sequence[str]
    last: Mapping[str, _Call]
    times: Mapping[str, int]
    classifier: nn.Linear | None

    def default_taps(self) -> list[str]:
        trunk = [call for call in self._trunk("") if call.made]
        if trunk and len(trunk[-1].made) == 2:
            return self._blocks() or [trunk[-1].name]
        ends = {call.made[1:]: call.name for call in trunk if len(call.made) == 3 and call.made[1:] != (1, 1)}
        if not ends:
            raise ModelError(
                f"{self.network} has no feature map to tap", "Name modules in distill.taps, or use a logit method."
            )
        return list(ends.values())

    def named_taps(self, taps: Sequence[str], whose: str) -> list[str]:
        for name in taps:
            if name not in self.names or name == "":
                near = difflib.get_close_matches(name, self.names, n=4, cutoff=0.4) or self.names[1:5]
                raise ConfigError(
                    f"distill.taps.{whose}: {self.network} has no module {name!r}", f"Near: {', '.join(near)}."
                )
            if name not in self.last or not self.last[name].made:
                raise ConfigError(
                    f"distill.taps.{whose}: {name!r} of {self.network} gives neither a map [B, C, H, W] nor tokens "
                    "[B, N, C]",
                    f"Such as {', '.join(self.default_taps())} do.",
                )
        return list(taps)

    def _trunk(self, container: str) -> list[_Call]:
        """The modules the features pass through, in order; a container is replaced by what is in it."""
        units: list[_Call] = []
        for call in self.last.values():
            if call.name and self._container(call.name) == container:
                if self._opens(call):
                    units += self._trunk(call.name)
                elif self.times[call.name] == 1:
                    units.append(call)
        return units

    def _container(self, name: str) -> str:
        """The innermost module around `name` that was called itself (a ModuleList is not)."""
        while name:
            name = name.rpartition(".")[0]
            if name in self.last:
                break
        return name

    def _opens(self, call: _Call) -> bool:
        if call.leaf or not call.given or not call.made:
            return not call.leaf
        if len(call.given) == len(call.made) == 3:
            return call.given[1] > 3 * call.made[1]
        return len(call.given) != len(call.made)

    def _blocks(self) -> list[str]:
        """Evenly spaced blocks: the outermost modules from tokens to tokens whose class occurs more than once."""
        calls = [c for c in self.last.values() if not c.leaf and len(c.given) == len(c.made) == 2]
        kinds = Counter(call.kind for call in calls)
        repeated = {c.name for c in calls if kinds[c.kind] > 1 and c.kind is not nn.Sequential}
        blocks = [name for name in repeated if not any(name.startswith(f"{other}.") for other in repeated)]
        order = list(self.last)
        blocks.sort(key=order.index)
        n = min(BLOCKS, len(blocks))
        return [blocks[(i + 1) * len(blocks) // n - 1] for i in range(n)]


@torch.no_grad()
def _dry_run(model: nn.Module, input_shape: tuple[int, int, int]) -> _Trace:
    """One forward pass of two random images with a listener on every module."""
    like = next(model.parameters(), torch.empty(0))
    images = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0)).to(like)
    last: dict[str, _Call] = {}
    times: Counter[str] = Counter()
    linear: list[tuple[nn.Linear, Tensor]] = []

    def listen(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            given = inputs[0] if inputs else None
            if output is given and not getattr(module, "inplace", False):  # an Identity, or dropout at rest
                return
            times[name] += 1
            last.pop(name, None)
            shape, channels_last = _features(output, input_shape)
            leaf = not any(True for _ in module.children())
            last[name] = _Call(name, type(module), _features(given, input_shape)[0], shape, channels_last, leaf)
            if isinstance(module, nn.Linear):
                linear.append((module, output))

        return hook

    hooks = [module.register_forward_hook(listen(name)) for name, module in model.named_modules()]
    training = model.training
    try:
        logits = model.eval()(images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    heads = [(module, output) for module, output in linear if output.shape == logits.shape]
    made = [module for module, output in heads if torch.equal(output, logits)] or [module for module, _ in heads]
    names = [name for name, _ in model.named_modules()]
    return _Trace(type(model).__name__, names, last, times, made[-1] if made else None)


def _features(value: Any, image: tuple[int, int, int]) -> tuple[Shape, bool]:
    """The shape of maps (C, H, W) or tokens (N, C) of the two images, and whether the maps are stored (H, W, C)."""
    if not isinstance(value, Tensor) or value.ndim not in (3, 4) or len(value) != 2:
        return (), False
    a, b, *rest = value.shape[1:]
    if not rest:
        return (a, b), False
    _, height, width = image
    if a * width == b * height and b * width != rest[0] * height:  # the image's aspect is in the first two
        return (rest[0], a, b), True
    return (a, b, rest[0]), False
