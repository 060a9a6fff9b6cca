"""Defaults <- YAML <- --set a.b=c <- flags; what is wrong is one error that names the key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from edgekd.config.methods import map_names
from edgekd.config.sections import ExportConfig, RunConfig, Section, TeacherConfig
from edgekd.errors import ConfigError


def load_config(
    file: Path | None = None, assignments: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> RunConfig:
    """Merge a YAML file, `a.b=c` assignments and flags (dotted keys; None is absent), later ones winning.

    Relative `data`, `target`, `teacher` and method paths in the YAML are relative to the YAML file's directory. Raises
    ConfigError.
    """
    record: dict[str, Any] = {}
    if file is not None:
        record = _read_yaml(file)
        _anchor_paths(record, file.parent)
    _assign_all(record, assignments)
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(record, key, value)
    try:
        return RunConfig.model_validate(record)
    except ValidationError as error:
        raise _explain(error, file) from None


class _OnlyExport(Section):
    export: ExportConfig = Field(default_factory=ExportConfig)


def load_export_config(assignments: Sequence[str] = (), opset: int | None = None) -> ExportConfig:
    """What `export.KEY=VALUE` assignments say, for a checkpoint that has no run. Raises ConfigError."""
    record: dict[str, Any] = {} if opset is None else {"export": {"opset": opset}}
    _assign_all(record, assignments)
    others = sorted(record.keys() - {"export"})
    if others:
        raise ConfigError(f"--set {others[0]}: a checkpoint's export takes keys of `export` alone", "Leave it out.")
    try:
        return _OnlyExport.model_validate(record).export
    except ValidationError as error:
        raise _explain(error, None) from None


def _assign_all(record: dict[str, Any], assignments: Sequence[str]) -> None:
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {text!r} is not KEY=VALUE", "Write --set distill.epochs=10.")
        _assign(record, key, yaml.safe_load(value))


def _read_yaml(file: Path) -> dict[str, Any]:
    if file.is_dir():
        raise ConfigError(f"config {file} is a directory", "Name a YAML file; `edgekd init` writes one.")
    if not file.is_file():
        raise ConfigError(f"config {file} does not exist", "Name a YAML file; `edgekd init` writes one.")
    try:
        record = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"config {file} is not YAML: {error}", "Compare it with the file `edgekd init` writes."
        ) from None
    if not isinstance(record, dict):
        raise ConfigError(f"config {file} holds no keys", "Compare it with the file `edgekd init` writes.")
    return record


def _anchor_paths(record: dict[str, Any], directory: Path) -> None:
    data = record.get("data")
    if isinstance(data, str) and (directory / data).exists():
        record["data"] = str((directory / data).resolve())
    target = record.get("target")
    if isinstance(target, str) and target.endswith(".yaml"):
        record["target"] = str((directory / target).resolve())
    for key in ("teacher", "teachers"):
        if key in record:
            record[key] = _anchor_teacher(record[key], directory)
    distill = record.get("distill")
    if isinstance(distill, dict) and isinstance(distill.get("store"), str):
        distill["store"] = str((directory / distill["store"]).resolve())
    for key in ("unlabelled", "table", "labels"):
        if isinstance(distill, dict) and isinstance(distill.get(key), str) and (directory / distill[key]).exists():
            distill[key] = str((directory / distill[key]).resolve())
    quantize = record.get("quantize")
    for section in (record.get("distill"), quantize.get("qad") if isinstance(quantize, dict) else None):
        if isinstance(section, dict) and "method" in section:
            section["method"] = map_names(section["method"], lambda name: _anchor_method(name, directory))


def _anchor_teacher(value: Any, directory: Path) -> Any:
    """`file:PATH` of one teacher or several, with the file found from `directory`."""
    if isinstance(value, list):
        return [_anchor_teacher(entry, directory) for entry in value]
    if isinstance(value, dict):
        return {**value, "source": _anchor_teacher(value.get("source"), directory)}
    if isinstance(value, str) and value.startswith("file:") and (directory / value[5:]).exists():
        return f"file:{(directory / value[5:]).resolve()}"
    return value


def _anchor_method(name: str, directory: Path) -> str:
    """A method's name; of `FILE.py:CLASS` the file is found from `directory`."""
    file, colon, kind = name.partition(":")
    return f"{(directory / file).resolve()}:{kind}" if colon and (directory / file).is_file() else name


def _assign(record: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    if parents == ["teacher"] and isinstance(record.get("teacher"), str):
        record["teacher"] = {"source": record["teacher"]}
    for parent in parents:
        below = record.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {key}: {parent} is not a section", "`edgekd init` shows every section and key.")
        record = below
    record[leaf] = value


def _explain(error: ValidationError, file: Path | None) -> ConfigError:
    """One error: the first field that is wrong, where it stands, and the nearest key that exists."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    source = f" in {file}" if file is not None else ""
    if first["type"] == "missing":
        return ConfigError(f"{where} is required{source}", f"Set it in the YAML or pass --{where.split('.')[-1]}.")
    if first["type"] == "extra_forbidden":
        *parents, leaf = (str(part) for part in first["loc"])
        near = difflib.get_close_matches(leaf, _fields(parents), n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(_fields(parents))}."
        return ConfigError(f"unknown key {where}{source}", hint)
    if first["type"] == "value_error" and isinstance(first.get("input"), dict):  # of several fields, which it names
        message, _, fix = str(first["ctx"]["error"]).rpartition(": ")
        where = f"{where}." if where else ""  # the section
        return ConfigError(f"{where}{message}{source}", f"{fix[0].upper()}{fix[1:]}.")
    return ConfigError(
        f"{where}: {first['msg']}, got {first.get('input')!r}{source}", "`edgekd init` shows what each key takes."
    )


def _fields(parents: Sequence[str]) -> list[str]:
    """The keys of the section at a dotted path."""
    model: type[BaseModel] = RunConfig
    for parent in parents:
        if parent.isdigit():  # of a list, whose name came before
            continue
        if parent == "teachers":
            model = TeacherConfig
            continue
        default = model.model_fields[parent].get_default(call_default_factory=True, validated_data={})
        model = type(default)
    return list(model.model_fields)
