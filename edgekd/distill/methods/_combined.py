"""From `distill.method` to one Method: options checked, methods weighted and summed, the hard label owned by one.

L = sum_i w_i L_i, where a factor w scales all terms of its method: the number in {NAME: 0.5}, or `weight` among the
options of a method that has no weight of its own. Where no method owns the hard-label term, cross-entropy is added.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from edgekd.catalog import MethodRow
from edgekd.config import MethodChoice, positive
from edgekd.distill.methods._base import Batch, Method, Outputs, Setup
from edgekd.distill.methods._custom import find_method
from edgekd.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """One method of a combination."""

    name: str
    factor: float
    method: Method


class Combined(Method):
    """The weighted sum of several methods; their terms keep their names, or get their method's where two are equal."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.methods = nn.ModuleList(part.method for part in parts)
        self._parts = tuple(parts)
        self.record: Mapping[str, Any] | None = None
        self._surgeons = [part for part in parts if part.method.surgery]
        if len(self._surgeons) > 1:
            names = " and ".join(part.name for part in self._surgeons)
            raise ConfigError(f"distill.method: {names} both change the gradient", "Keep one of them.")

    @property
    def hold_out(self) -> float:
        return max(part.method.hold_out for part in self._parts)

    def prepare(self, setup: Setup) -> None:
        for part in self._parts:
            part.method.prepare(setup)

    def transform_batch(self, batch: Batch, step: int) -> Batch:
        for part in self._parts:
            batch = part.method.transform_batch(batch, step)
        return batch

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for part in self._parts:
            for key, term in part.method.loss(student, teacher, batch, step).items():
                terms[key if key not in terms else f"{part.name}.{key}"] = part.factor * term
        return terms

    @property
    def surgery(self) -> bool:
        return bool(self._surgeons)

    def backward(self, terms: dict[str, Tensor]) -> None:
        if self._surgeons:
            self._surgeons[0].method.backward(terms)
        else:
            super().backward(terms)

    def after_step(self, step: int) -> None:
        for part in self._parts:
            part.method.after_step(step)

    def export(self, student: nn.Module) -> nn.Module:
        for part in self._parts:
            student = part.method.export(student)
            self.record = part.method.record or self.record
        return student

    def report(self, out: Path) -> list[str]:
        return [note for part in self._parts for note in part.method.report(out)]


def make_method(choices: Sequence[MethodChoice], label_smoothing: float, seed: int) -> tuple[Method, MethodRow]:
    """The method that `choices` describe and its row; of a combination, the row says what all of them need.

    Raises ConfigError: an unknown name or option, a value of another type, a method named twice, two owners of the
    hard-label term, or a pair that one of the two refuses.
    """
    found = [(choice, *find_method(choice.name)) for choice in choices]
    names = [row.name for _, _, row in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"distill.method: {name} is named twice", "Name it once, with a weight.")
    owners = [row.name for _, _, row in found if row.owns_labels]
    if len(owners) > 1:
        raise ConfigError(
            f"distill.method: {owners[0]} and {owners[1]} both own the hard-label term", "Keep one of the two."
        )
    for _, _, row in found:
        for name in names:
            if name in row.refuses:
                pair = f"{row.name} cannot be listed with {name}"
                raise ConfigError(f"distill.method: {pair}, {row.refuses[name]}", "Keep one of the two.")
    if not owners:
        choice = MethodChoice("ce", {})
        found.insert(0, (choice, *find_method("ce")))
    parts, rows = [], []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for choice, kind, row in found:
            factor, given = choice.factor, dict(choice.options)
            if "weight" in given and "weight" not in options_of(kind):
                factor = positive(given.pop("weight"), choice.name)
            options = _checked(choice.name, given, kind)
            if row.owns_labels:
                options = {"label_smoothing": label_smoothing, **options}
            try:
                method = kind(**options)
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"distill.method.{choice.name}: {error}", f"`edgekd methods show {choice.name}` says what it takes."
                ) from error
            parts.append(Part(row.name, factor, method))
            rows.append(method.row(row))
    heavy = [row.name for row in rows if row.ships_extra]
    if len(heavy) > 1:
        raise ConfigError(f"distill.method: {heavy[0]} and {heavy[1]} both change what ships", "Keep one of the two.")
    if len(parts) == 1 and parts[0].factor == 1:
        return parts[0].method, rows[0]
    return Combined(parts), _joined(rows)


def _joined(rows: Sequence[MethodRow]) -> MethodRow:
    names = [row.name for row in rows if row.name != "ce"] or ["ce"]
    return MethodRow(
        " + ".join(names),
        "edgekd.distill.methods._combined:Combined",
        "; ".join(row.summary for row in rows),
        family=rows[-1].family,
        paper="; ".join(row.paper for row in rows),
        needs=tuple(dict.fromkeys(need for row in rows for need in row.needs)),
        anchor="-",
        tasks=tuple(task for task in rows[0].tasks if all(task in row.tasks for row in rows)),
        min_classes=max(row.min_classes for row in rows),
        owns_labels=True,
        top_logits=max(row.top_logits for row in rows),
        permutable=all(row.permutable for row in rows),
        teacher=any(row.teacher for row in rows),
        any_classes=all(row.any_classes for row in rows),
        ships_extra=any(row.ships_extra for row in rows),
    )


def options_of(kind: type[Method]) -> Mapping[str, inspect.Parameter]:
    """What a method's `__init__` takes, by name."""
    parameters = list(inspect.signature(kind).parameters.values())
    return {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _checked(name: str, given: Mapping[str, Any], kind: type[Method]) -> dict[str, Any]:
    """The options as `kind.__init__` declares them; what has no annotation that means something is passed on."""
    known, checked = options_of(kind), {}
    try:
        hints = get_type_hints(kind.__init__)
    except NameError:  # a user's, of names that only a type checker sees
        hints = {}
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Its options: {', '.join(known) or 'none'}."
            raise ConfigError(f"distill.method.{name}: unknown option {key}", hint)
        try:
            checked[key] = TypeAdapter(hints.get(key, Any)).validate_python(value)
        except ValidationError as error:
            raise ConfigError(
                f"distill.method.{name}.{key}: {error.errors()[0]['msg']}, got {value!r}",
                f"`edgekd methods show {name}` says what it takes.",
            ) from None
    missing = [p.name for p in known.values() if p.default is p.empty and p.name not in checked]
    if missing:
        raise ConfigError(
            f"distill.method.{name}: {missing[0]} is required",
            f"Write {{{name}: {{{missing[0]}: VALUE}}}}.",
        )
    return checked
