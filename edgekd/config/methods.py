"""`distill.method`: names of methods with their options and factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekd.errors import ConfigError


@dataclass(frozen=True)
class MethodChoice:
    """One entry of `distill.method`: a name, its options, and a factor on its terms."""

    name: str
    options: Mapping[str, Any]
    factor: float = 1.0


def method_choices(value: Any) -> list[MethodChoice]:
    """The entries of `distill.method`: NAME, {NAME: {option: value}}, {NAME: factor}, or a list of those.

    Raises ConfigError.
    """
    choices = []
    for entry in value if isinstance(value, list | tuple) and value else [value]:
        named = {entry: None} if isinstance(entry, str) else entry
        if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named):
            raise ConfigError(
                f"distill.method: {entry!r} is not a method",
                "Write kd, {dkd: {beta: 8}}, {rkd: 0.5} or a list of those.",
            )
        for name, given in named.items():
            if isinstance(given, dict) or given is None:
                choices.append(MethodChoice(name, given or {}))
            else:
                choices.append(MethodChoice(name, {}, positive(given, name)))
    return choices


def map_names(value: Any, change: Callable[[str], str]) -> Any:
    """`distill.method` with its methods' names changed, also those of the option `method`, which one wraps."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [map_names(entry, change) for entry in value]
    if not isinstance(value, dict):
        return value
    return {map_names(name, change): _map_wrapped(options, change) for name, options in value.items()}


def _map_wrapped(options: Any, change: Callable[[str], str]) -> Any:
    if not isinstance(options, dict) or "method" not in options:
        return options
    return {**options, "method": map_names(options["method"], change)}


def positive(value: Any, method: str) -> float:
    """A factor on a method's terms. Raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(
            f"distill.method.{method}: {value!r} is neither options nor a factor above 0",
            f"Write {{{method}: 0.5}}, or {{{method}: {{option: value}}}}.",
        )
    return float(value)
