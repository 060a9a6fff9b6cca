"""A user's own method: `./my.py:MyKD` or `package.module:MyKD` wherever a method's name stands.

The class says in attributes what a row of the catalogue would:

    class MyKD(Method):
        \"""Its first line is the summary.\"""
        needs = ("labels", "embeddings")
        owns_labels = True
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from edgekd.catalog import METHODS, NEEDS, MethodRow, find
from edgekd.distill.methods._base import Method
from edgekd.errors import ConfigError
from edgekd.stage import fingerprint

DEFAULTS: dict[str, Any] = {"family": "logit", "paper": "-", "needs": ("labels",), "anchor": "-"}


def find_method(name: str) -> tuple[type[Method], MethodRow]:
    """The class called `name` and its row: the catalogue's, or a user's own. Raises ConfigError."""
    if ":" not in name:
        row = find(METHODS, "distill.method", name)
        return row.load(), row
    place, _, attribute = name.rpartition(":")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    method = getattr(module, attribute, None)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise ConfigError(
            f"distill.method: {place} has no class {attribute} that is a Method",
            "Subclass edgekd.distill.methods._base.Method.",
        )
    return method, _row(name, method)


def _row(name: str, method: type[Method]) -> MethodRow:
    keys = {field.name for field in fields(MethodRow)} - {"name", "target", "summary"}
    said = DEFAULTS | {key: getattr(method, key) for key in keys if hasattr(method, key)}
    unknown = set(said["needs"]) - set(NEEDS)
    if unknown:
        raise ConfigError(f"distill.method: {name} needs {unknown.pop()!r}", f"Known needs: {', '.join(NEEDS)}.")
    if said.get("ships_extra") and name.rpartition(":")[0].endswith(".py"):
        raise ConfigError(
            f"distill.method: {name} ships a class that a later process could not import",
            "Put it into an installed module and write PACKAGE.MODULE:CLASS.",
        )
    summary = (method.__doc__ or "").strip().split("\n")[0]
    return MethodRow(method.__name__, name, summary, **said)


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(
            f"distill.method: module {name} cannot be imported: {type(error).__name__}: {error}",
            "Write PACKAGE.MODULE:CLASS or FILE.py:CLASS.",
        ) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"distill.method: {path} does not exist", "Name a file as FILE.py:CLASS.")
    name = f"edgekd_method_{path.stem}_{fingerprint(path.read_text())[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises
        del sys.modules[name]
        raise ConfigError(
            f"distill.method: {path} cannot be imported: {type(error).__name__}: {error}", "Run it with python first."
        ) from error
    return module
