"""Search spaces as data: genes with their legal choices, and what is the same for all. One space a file."""

from __future__ import annotations

import difflib
import heapq
import math
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from edgekd.artifacts import ModelSpec
from edgekd.errors import ConfigError, TargetError
from edgekd.profile.operators import Network, operators
from edgekd.profile.token_operators import Linear
from edgekd.search.spaces._rules import RULES

if TYPE_CHECKING:
    from edgekd.profile.device import Device

PATIENCE = 2000  # cheapest points of which one must be legal


@dataclass(frozen=True, init=False)
class Genotype:
    """An architecture as tuples of values by name: `Genotype(depths=(2, 1, 1), widths=(16, 48, 144))`."""

    fields: tuple[tuple[str, tuple[Any, ...]], ...]

    def __init__(self, **fields: Sequence[Any]) -> None:
        object.__setattr__(self, "fields", tuple((name, tuple(values)) for name, values in fields.items()))

    def __getattr__(self, name: str) -> tuple[Any, ...]:
        for key, values in () if name == "fields" else self.fields:
            if key == name:
                return values
        raise AttributeError(name)

    def __str__(self) -> str:
        return " ".join(f"{name}={','.join(map(str, values))}" for name, values in self.fields)


@dataclass(frozen=True)
class Point:
    """A genotype with its closed-form figures: trainable parameters, multiply-accumulates of an image, blocks in a row.

    `expressivity` is the sum over those blocks of log(channels), in nats: the entropy of their features' spectra
    cannot exceed it.
    """

    genotype: Genotype
    spec: ModelSpec
    params: int
    macs: int
    depth: int
    expressivity: float


@dataclass(frozen=True)
class Gene:
    """A field of the genotype: the choices of every position, in order of cost."""

    choices: tuple[tuple[Any, ...], ...]
    rising: bool = False  # no position is below the one before

    @classmethod
    def alike(cls, positions: int, *choices: Any) -> Gene:
        """The same choices in every position."""
        return cls((choices,) * positions)

    def size(self) -> int:
        """How many ways there are to fill it."""
        ways = dict.fromkeys(self.choices[0], 1)
        for choices in self.choices[1:]:
            ways = {b: sum(n for a, n in ways.items() if not self.rising or a <= b) for b in choices}
        return sum(ways.values())

    def sample(self, generator: random.Random) -> list[Any]:
        """Position by position, each uniform among what the one before it leaves."""
        values: list[Any] = []
        for choices in self.choices:
            values.append(generator.choice([c for c in choices if not (self.rising and values) or c >= values[-1]]))
        return values


class Space(ABC):
    """A set of architectures for one task's classes and input shape (C, H, W), and for one target.

    A space says its genes, how a genotype is built and what its network runs; the rest follows. Without a device no
    target's rules apply. Raises ConfigError for images that the space cannot take, and TargetError for a target that
    excludes every point.
    """

    name: ClassVar[str]
    genes: ClassVar[Mapping[str, Gene]]
    named: ClassVar[Mapping[str, Genotype]] = {}

    def __init__(self, num_classes: int, input_shape: tuple[int, int, int], device: Device | None = None) -> None:
        self.num_classes, self.input_shape, self.device = num_classes, input_shape, device
        self.fit()
        self._smallest = self._find_smallest()

    @abstractmethod
    def spec(self, genotype: Genotype) -> ModelSpec:
        """How to build the point; its input normalisation is left to the caller."""

    @abstractmethod
    def network(self, genotype: Genotype) -> Network:
        """The deployed graph's layers, to be counted and timed."""

    def fit(self) -> None:  # noqa: B027 - most spaces take any image
        """Set what follows from the images' shape. Raises ConfigError for one the space cannot take."""

    def blocks(self, genotype: Genotype) -> list[int]:
        """The channels of every block in a row."""
        stages = zip(genotype.depths, genotype.widths, strict=True)
        return [width for depth, width in stages for _ in range(depth)]

    def positions(self, genotype: Genotype, field: str) -> int:
        """How many values a field has; fewer than its gene where the others make some of no use."""
        return len(self.genes[field].choices)

    def canonical(self, genotype: Genotype) -> Genotype:
        """The one genotype of all that build the same network."""
        return Genotype(**{name: values[: self.positions(genotype, name)] for name, values in genotype.fields})

    def unsound(self, genotype: Genotype) -> str | None:
        """Why values that are legal one by one are not so together, or None."""
        return None

    def size(self) -> int:
        """How many points there are, before the target's rules."""
        return math.prod(gene.size() for gene in self.genes.values())

    def illegal(self, genotype: Genotype) -> str | None:
        """Why the genotype is not in the space, or why the target excludes it, or None."""
        return self._outside(genotype) or self._excluded(genotype)

    def point(self, genotype: Genotype) -> Point:
        """The genotype with its spec and cost, counted without building it."""
        found = operators(self.network(genotype))
        params, macs = sum(op.params for op in found), sum(op.macs for op in found)
        blocks = self.blocks(genotype)
        return Point(genotype, self.spec(genotype), params, macs, len(blocks), sum(map(math.log, blocks)))

    def smallest(self) -> Genotype:
        """The legal point that has the fewest parameters, then MACs, of all."""
        return self._smallest

    def sample(self, generator: random.Random) -> Genotype:
        """A random point: gene by gene, drawn again until it is legal."""
        while True:
            genotype = self.canonical(Genotype(**{name: gene.sample(generator) for name, gene in self.genes.items()}))
            if self.illegal(genotype) is None:
                return genotype

    def mutate(self, genotype: Genotype, generator: random.Random) -> Genotype:
        """Another point that differs in one gene: a number by up to two steps, a name by any other."""
        places = list(self._places(genotype))
        while True:
            name, place, choices, value = generator.choice(places)
            now = choices.index(value)
            steps = range(-now, len(choices) - now) if isinstance(value, str) else (-2, -1, 1, 2)
            then = now + generator.choice(steps)
            if 0 <= then < len(choices):
                child = self._with(genotype, name, place, choices[then])
                if child != genotype and self.illegal(child) is None:
                    return child

    def crossover(self, a: Genotype, b: Genotype, generator: random.Random) -> Genotype:
        """Every position from one of the two parents, those that must rise put in order; a parent where illegal."""
        mothers, fathers = self._padded(a), self._padded(b)
        fields = {}
        for name, gene in self.genes.items():
            values = [generator.choice(pair) for pair in zip(mothers[name], fathers[name], strict=True)]
            fields[name] = sorted(values) if gene.rising else values
        child = self.canonical(Genotype(**fields))
        return child if self.illegal(child) is None else generator.choice((a, b))

    def shrink(self, genotype: Genotype, generator: random.Random) -> Genotype:
        """A point that is the next legal step smaller in one gene; `smallest()` shrinks to itself."""
        places = list(self._places(genotype))
        for name, place, choices, value in generator.sample(places, len(places)):
            for cheaper in reversed(choices[: choices.index(value)]):
                child = self._with(genotype, name, place, cheaper)
                if child != genotype and self.illegal(child) is None:
                    return child
        return genotype

    def parse(self, text: str, field: str = "search.student") -> Genotype:
        """A point by its name or its string. Raises ConfigError that names `field` and what is nearest."""
        genotype = self.named.get(text) or self.read(text, field)
        reason = self.illegal(genotype)
        if reason is not None:
            raise ConfigError(f"{field}: {text!r} is not a point of {self.name}: {reason}", self._fix(text, genotype))
        return genotype

    def read(self, text: str, field: str = "search.student") -> Genotype:
        """The genotype that `str` wrote, legal or not. Raises ConfigError."""
        parts = re.findall(r"(\w+)=(\S+)", text)
        wrong = f"{field}: {text!r} is not a point of {self.name}"
        if [name for name, _ in parts] != list(self.genes) or " ".join(map("=".join, parts)) != " ".join(text.split()):
            raise ConfigError(wrong, self._fix(text))
        fields = {}
        for name, values in parts:
            kind = type(self.genes[name].choices[0][0])
            try:
                fields[name] = [kind(value) for value in values.split(",")]
            except ValueError:
                raise ConfigError(f"{wrong}: {name} takes numbers, not {values}", self._fix(text)) from None
        return Genotype(**fields)

    def _fix(self, text: str, genotype: Genotype | None = None) -> str:
        """Names like `text`, or all, and the point nearest to `genotype`."""
        names = difflib.get_close_matches(text, self.named, n=3) or list(self.named)
        near = self._nearest(genotype) if genotype is not None else None
        return f"Write {near or self.smallest()}, or one of {', '.join(names)}."

    def _nearest(self, genotype: Genotype) -> Genotype | None:
        """The genotype with every value moved to the nearest choice, if that makes it legal."""
        fields, given = {}, self._padded(genotype)
        for name, gene in self.genes.items():
            near = [_closest(value, choices) for value, choices in zip(given[name], gene.choices, strict=False)]
            fields[name] = sorted(near) if gene.rising else near
        found = self.canonical(Genotype(**fields))
        return found if self.illegal(found) is None else None

    def _outside(self, genotype: Genotype) -> str | None:
        if [name for name, _ in genotype.fields] != list(self.genes):
            return f"its fields are {', '.join(self.genes)}"
        for name, values in genotype.fields:
            gene, positions = self.genes[name], self.positions(genotype, name)
            if len(values) != positions:
                return f"{name} has {len(values)} values, not {positions}"
            for place, (value, choices) in enumerate(zip(values, gene.choices, strict=False), 1):
                if value not in choices:
                    return f"{name} {value} in place {place} is not one of {', '.join(map(str, choices))}"
            if gene.rising and list(values) != sorted(values):
                return f"a value of {name} is below the one before it"
        reason, same = self.unsound(genotype), self.canonical(genotype)
        return reason or (None if same == genotype else f"it is the same network as {same}")

    def _excluded(self, genotype: Genotype) -> str | None:
        rules = RULES.get(self.device.scheme, ()) if self.device is not None else ()
        found = operators(self.network(genotype)) if rules else []
        for rule in rules:
            for op in found:
                for channels in op.channels if rule.linear or not isinstance(op, Linear) else ():
                    if not rule.allows(channels):
                        assert self.device is not None
                        return f"{channels} channels, and {self.device.name} wants {rule.name}: {rule.reason}"
        return None

    def _find_smallest(self) -> Genotype:
        """From the cheapest choices up, in order of cost: the first that is legal."""
        start = Genotype(**{name: [choices[0] for choices in gene.choices] for name, gene in self.genes.items()})
        heap, seen, tried, reason = [(0, 0, 0, start)], {start}, 0, None
        while heap and tried < PATIENCE:
            *_, genotype = heapq.heappop(heap)
            found, tried = self.canonical(genotype), tried + 1
            if self._outside(found) is None:
                reason = self._excluded(found)
                if reason is None:
                    return found
            for name, place, choices, value in self._places(genotype):
                for dearer in choices[choices.index(value) + 1 :][:1]:
                    values = list(getattr(genotype, name))
                    values[place] = dearer
                    child = Genotype(**{**dict(genotype.fields), name: values})
                    if child not in seen:
                        seen.add(child)
                        point = self.point(self.canonical(child))
                        heapq.heappush(heap, (point.params, point.macs, len(seen), child))
        assert self.device is not None
        raise TargetError(
            f"{self.device.name} excludes the {tried:,} cheapest points of {self.name}: {reason}",
            "Set search.space to another.",
        )

    def _places(self, genotype: Genotype) -> Iterator[tuple[str, int, tuple[Any, ...], Any]]:
        """Name, place, choices and value of every position that has a choice."""
        for name, values in genotype.fields:
            for place, (value, choices) in enumerate(zip(values, self.genes[name].choices, strict=False)):
                if len(choices) > 1:
                    yield name, place, choices, value

    def _padded(self, genotype: Genotype) -> dict[str, list[Any]]:
        """Every field at full length: what is of no use has its cheapest choice."""
        return {
            name: [*values, *(choices[0] for choices in self.genes[name].choices[len(values) :])]
            for name, values in genotype.fields
        }

    def _with(self, genotype: Genotype, name: str, place: int, value: Any) -> Genotype:
        fields = self._padded(genotype)
        fields[name][place] = value
        return self.canonical(Genotype(**fields))


def _closest(value: Any, choices: Sequence[Any]) -> Any:
    if isinstance(value, str):
        return next(iter(difflib.get_close_matches(value, choices, n=1, cutoff=0)))
    return min(choices, key=lambda choice: abs(choice - value))
