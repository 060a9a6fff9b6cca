"""The command line: parse, one library call, render. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekd.cli._app import app

# isort: off
from edgekd.cli import stages, profile, run, files, lists  # noqa: F401  each registers its commands, in this order
# isort: on


def _version(wanted: bool) -> None:
    if wanted:
        from edgekd import __version__

        typer.echo(f"edgekd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """A trained teacher and a target device in; a small student, deployed and measured there, out."""


def main() -> None:
    app()
