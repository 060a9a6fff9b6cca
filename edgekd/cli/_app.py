"""The Typer application: how a command ends, and what it shows while it works."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperGroup

from edgekd import processes
from edgekd.errors import EdgekdError

if TYPE_CHECKING:
    from edgekd.progress import Progress

_RUN: ContextVar[Path | None] = ContextVar("run directory of this command", default=None)


class _Group(TyperGroup):
    """Errors become one message and an exit code: 2 for wrong input, 3 for a failed run, 130 for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        _RUN.set(None)
        try:
            return super().invoke(ctx)
        except EdgekdError as error:
            if processes.rank():  # the first process says it
                raise typer.Exit(error.exit_code) from None
            _stop(f"error: {error.what}\n{error.fix}", error.exit_code)
        except KeyboardInterrupt:
            _stop("stopped; the same command goes on from here", 130)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if type(error).__module__.startswith(("typer.", "click.")):  # usage errors: typer prints them and exits 2
                raise
            log = _write_log()
            _stop(f"error: {type(error).__name__}: {error}\nThis is a fault in edgekd; the traceback is in {log}", 3)


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code) from None


def _write_log() -> Path:
    """The current traceback in RUN/error.log, or in a temporary file where there is no run or no room."""
    run = _RUN.get()
    text = traceback.format_exc()
    if run is not None and (run / ".edgekd").is_file():
        with suppress(OSError):
            (run / "error.log").write_text(text)
            return run / "error.log"
    with tempfile.NamedTemporaryFile("w", prefix="edgekd-error-", suffix=".log", delete=False) as file:
        file.write(text)
    return Path(file.name)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich would double the time of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)


@contextmanager
def working(run: Path | None, json: bool) -> Iterator[Progress]:
    """The progress of a long call; whatever libraries print goes to standard error."""
    from edgekd.progress import NullProgress, PlainProgress, RichProgress

    _RUN.set(run)
    with redirect_stdout(sys.stderr):
        yield NullProgress() if json or processes.rank() else RichProgress() if sys.stderr.isatty() else PlainProgress()
