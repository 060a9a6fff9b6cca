"""A commented YAML for a run: every key with its value, explained by the config's own field descriptions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgekd.config import RunConfig, TeacherConfig
from edgekd.errors import ConfigError
from edgekd.profile.devices import load_device
from edgekd.stage import write_atomic

_HEADER = (
    "# A run of edgekd. Every key is here with its value: keep what matters, delete the rest, defaults stay the same.\n"
)
_COLUMN = 36  # where the comments stand


def write_config(file: Path, config: RunConfig) -> None:
    """Write `config` to a new YAML `file` that `load_config` reads back as the same run.

    Relative paths in `config` are relative to the working directory; in the file, to the file. Raises ConfigError
    when `file` exists, TargetError when the target is unknown.
    """
    load_device(config.target)
    if file.exists():
        raise ConfigError(f"{file} exists", "Name another file, or remove it first.")
    if not file.parent.is_dir():
        raise ConfigError(f"the directory of {file} does not exist", "Make it, or name another file.")
    write_atomic(file, config_text(_relative(config, file.parent)).encode())


def config_text(config: RunConfig) -> str:
    """`config` as YAML, a comment after each key that has a description."""
    return _HEADER + "\n".join(_lines(config, 0)) + "\n"


def _relative(config: RunConfig, directory: Path) -> RunConfig:
    def anchored(path: str) -> str:
        return os.path.relpath(path, directory) if Path(path).exists() and not Path(path).is_absolute() else path

    def moved(teacher: TeacherConfig) -> TeacherConfig:
        if teacher.source is None or not teacher.source.startswith("file:"):
            return teacher
        return teacher.model_copy(update={"source": f"file:{anchored(teacher.source[5:])}"})

    teachers = tuple(map(moved, config.teachers))
    target = anchored(config.target) if config.target.endswith(".yaml") else config.target
    return config.model_copy(
        update={"data": anchored(config.data), "target": target, "teacher": moved(config.teacher), "teachers": teachers}
    )


def _lines(section: BaseModel, depth: int) -> list[str]:
    """The section's own keys, then the sections in it."""
    indent, lines, below = "  " * depth, [], []
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            below += [""] * (depth == 0) + [f"{indent}{name}:", *_lines(value, depth + 1)]
        else:
            line, note = f"{indent}{name}: {_scalar(value)}", _note(info)
            lines.append(f"{line:<{_COLUMN}} # {note}" if note else line)
    return lines + below


def _scalar(value: Any) -> str:
    if isinstance(value, tuple):
        sections = (v.model_dump(mode="json", exclude_defaults=True) if isinstance(v, BaseModel) else v for v in value)
        value = list(sections)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _note(info: FieldInfo) -> str:
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    notes = [info.description] if info.description else []
    if choices:
        notes.append(" | ".join(map(str, choices)))
    return "; ".join(notes)
