"""Progress with an ETA for whatever takes longer than two seconds; silent where nobody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    def advance(self, amount: float = 1) -> None: ...


class Progress(Protocol):
    """`with progress.task("distill", total=100) as task: task.advance()`; `progress.note` says one line."""

    def task(self, name: str, total: float, done: float = 0) -> AbstractContextManager[Task]: ...

    def note(self, text: str) -> None: ...


class _Silent:
    def advance(self, amount: float = 1) -> None: ...


class NullProgress:
    """For library use, tests and --json."""

    @contextmanager
    def task(self, name: str, total: float, done: float = 0) -> Iterator[Task]:
        yield _Silent()

    def note(self, text: str) -> None: ...


class RichProgress:
    """A bar with elapsed and remaining time on standard error."""

    def note(self, text: str) -> None:
        from rich.console import Console

        Console(stderr=True).print(text, style="dim", markup=False, highlight=False)

    @contextmanager
    def task(self, name: str, total: float, done: float = 0) -> Iterator[Task]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn("[bold]{task.description:<24}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            identifier = bar.add_task(name, total=total, completed=done)  # type: ignore[arg-type]

            class Shown:
                def advance(self, amount: float = 1) -> None:
                    bar.advance(identifier, amount)

            yield Shown()


class PlainProgress:
    """Lines on standard error for a log: one where a task starts, then its share and ETA every ten seconds."""

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, name: str, total: float, done: float = 0) -> Iterator[Task]:
        print(name, file=sys.stderr, flush=True)

        class Logged:
            start = said = time.monotonic()
            now = done

            def advance(self, amount: float = 1) -> None:
                self.now += amount
                clock = time.monotonic()
                if clock - self.said >= 10 and self.now > done:
                    self.said = clock
                    left = (clock - self.start) * (total - self.now) / (self.now - done)
                    # The first steps of a task do more than the others: they compile, or fill a table.
                    eta = f", ETA {max(0.0, left):.0f} s" if self.now - done >= total / 100 else ""
                    print(f"{name}: {self.now / total:.0%}{eta}", file=sys.stderr, flush=True)

        yield Logged()
