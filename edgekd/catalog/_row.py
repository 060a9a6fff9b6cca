"""What a row is, and how one is found by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from edgekd.errors import ConfigError


@dataclass(frozen=True)
class Row:
    name: str
    target: str  # "module:attribute"
    summary: str

    def load(self) -> Any:
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


R = TypeVar("R", bound=Row)


def find(rows: Mapping[str, R], field: str, name: str) -> R:
    """The row called `name`; ConfigError names `field` and the nearest names otherwise."""
    if name in rows:
        return rows[name]
    near = difflib.get_close_matches(name, rows, n=3) or sorted(rows)
    raise ConfigError(f"{field}: unknown name {name!r}", f"Known: {', '.join(near)}.")
