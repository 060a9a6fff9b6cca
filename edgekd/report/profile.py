"""profile.html: what `edgekd profile` has measured as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd.report import latency
from edgekd.report.html import environment, style
from edgekd.stage import write_atomic


def write_page(path: Path, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Draw `LatencyReport.summary()` rows, at least one; its headline is the fastest at the smallest batch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = (
        environment()
        .get_template("profile.html.j2")
        .render(
            title=title,
            css=style(),
            latency=latency.view(rows),
            main=min(rows, key=lambda row: (row["batch"], row["p50_ms"])),
            conditions=latency.conditions(rows, shown=("versions",)),
        )
    )
    write_atomic(path, page.encode())
