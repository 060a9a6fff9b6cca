"""The model card of a bundle: what it is, what was measured and how, and what nobody has looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edgekd.config import TeacherConfig

UNKNOWN = "unknown"
KINDS = {"teacher": "teacher", "student-fp32": "student, torch", "onnx-fp32": "student, ONNX"}


def model_card(
    *,
    run: dict[str, Any],
    manifest: dict[str, Any],
    ledger: list[dict[str, Any]],
    latency: list[dict[str, Any]],
    goldens: dict[str, Any],
    lint: dict[str, Any],
    licence: dict[str, str],
) -> str:
    """Markdown. `ledger` and `latency` are the report's rows; where nothing was measured, the card says so."""
    shipped = {model["artifact"] for model in manifest["models"]}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    return environment.get_template("model_card.md.j2").render(
        run=run,
        manifest=manifest,
        ledger=[row for row in ledger if row["artifact"] in KINDS or row["artifact"] in shipped],
        latency=[row for row in latency if row["measured"] and row["artifact"] in {"teacher", *shipped}],
        kinds=KINDS,
        goldens=goldens,
        lint=lint,
        licence=licence,
    )


def teacher_licence(config: TeacherConfig) -> dict[str, str]:
    """{licence, source} of the teacher's weights, from who publishes them; `unknown` where nobody says."""
    if config.source is None:
        return {"licence": "none of others", "source": "trained by this run on the same data"}
    kind, _, name = config.source.partition(":")
    if kind == "timm":
        import timm

        published = timm.get_pretrained_cfg(name)
        licence = None if published is None else published.license
        return {"licence": licence or UNKNOWN, "source": f"timm's record of {name}"}
    return {"licence": UNKNOWN, "source": f"{kind} states none for {Path(name).name}"}
