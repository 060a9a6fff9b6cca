"""Figures as text, with their units; a value that was not measured is a dash."""

from __future__ import annotations

from typing import Any

DASH = "–"

PRECISIONS = {
    "fp32": "FP32",
    "fp16": "FP16",
    "fp8": "FP8",
    "int8": "INT8",
    "int8-fp16": "INT8 with FP16",
    "int8-weights": "INT8 weight-only",
}

ARTIFACTS = {
    "teacher": "Teacher, FP32 ONNX",
    "student-fp32": "Student, FP32 torch",
    "student-ptq": "Student after PTQ",
    "student-qad": "Student after QAD",
    **{f"onnx-{name}": f"Student, {text} ONNX" for name, text in PRECISIONS.items()},
}

NAMES = {
    "n": "images",
    "val_top1": "validation top-1",
    "val_kl": "validation KL",
    "qad_val_kls": "validation KL by QAD epoch",
    "calibration": "calibration images",
    "seconds": "time",
}


def artifact(name: str) -> str:
    return ARTIFACTS.get(name, name)


def precision(name: str) -> str:
    return PRECISIONS.get(name, name)


def percent(value: float | None, digits: int = 2) -> str:
    return DASH if value is None else f"{100 * value:.{digits}f} %"


def points(value: float | None) -> str:
    """A difference of two fractions in percentage points, signed."""
    return DASH if value is None else f"{100 * value:+.2f} pt".replace("-", "−")


def ms(value: float | None) -> str:
    """Milliseconds with three significant digits."""
    if value is None:
        return DASH
    return f"{value:.{2 if value >= 1 else 3}f} ms" if value < 10 else f"{value:.{1 if value < 100 else 0}f} ms"


def signed(value: float, digits: int) -> str:
    """A difference."""
    return f"{value:+.{digits}f}".replace("-", "−")


def size(value: float | None) -> str:
    """Bytes in SI units."""
    if value is None:
        return DASH
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{three(value / scale)} {unit}"
    return f"{value:.0f} B"


def count(value: float | None) -> str:
    """A large count: 272.5 k, 40.8 M."""
    if value is None:
        return DASH
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{three(value / scale)} {unit}"
    return f"{value:.0f}"


def three(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def times(value: float | None) -> str:
    return DASH if value is None else f"{value:.{0 if value >= 100 else 1}f}×"


def rate(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f} /s"


def seconds(value: float | None) -> str:
    if value is None:
        return DASH
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def whole(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"


def number(value: float | None) -> str:
    """A score or a loss: four significant digits."""
    return DASH if value is None else f"{value:#.4g}".replace("-", "−")


def figure(key: str, value: Any) -> str:
    """A value of a free-form record, by what its key says it is."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{words(k)} {figure(k, v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(figure(key, item) for item in value) or DASH
    if isinstance(value, str):
        return value or DASH
    if any(part in key for part in ("top1", "agreement", "accuracy")):
        return percent(value)
    if key.endswith("_percent"):
        return f"{value:.2f} %"
    if key == "seconds" or key.endswith("_seconds"):
        return seconds(value)
    if key.endswith("_ms"):
        return ms(value)
    if key.endswith("_bytes"):
        return size(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}".replace("-", "−")


def words(key: str) -> str:
    """`val_top1` -> `val top-1`: a key as a label."""
    if key in NAMES:
        return NAMES[key]
    for suffix in ("_percent", "_bytes", "_ms"):
        key = key.removesuffix(suffix)
    return key.replace("_", " ").replace("top1", "top-1")
