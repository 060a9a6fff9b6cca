"""Results on standard output: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def emit(record: Any) -> None:
    print(json.dumps(record, indent=2, default=str))


def records(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Dataclasses or mappings as plain dictionaries."""
    return [asdict(item) if is_dataclass(item) and not isinstance(item, type) else dict(item) for item in items]


def console() -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 140)


def table(title: str, columns: Mapping[str, str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table; `columns` maps each heading to its alignment, left or right."""
    from rich import box
    from rich.table import Table

    drawn = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, align in columns.items():
        drawn.add_column(heading, justify="right" if align == "right" else "left", overflow="fold")
    for line in lines:
        drawn.add_row(*line)
    console().print(drawn)


def rows(items: Sequence[Any], as_json: bool, title: str = "") -> None:
    """Any rows, one column a key."""
    plain = records(items)
    if as_json:
        emit(plain)
        return
    plain = [{key: value for key, value in row.items() if key != "target"} for row in plain]  # catalogue: import string
    columns = dict.fromkeys((key for row in plain for key in row), "left")
    table(title, columns, [[cell(row.get(key)) for key in columns] for row in plain])


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items()) or "-"
    return str(value)
