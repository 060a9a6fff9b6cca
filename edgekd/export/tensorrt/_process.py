"""A builder as a child process: a crash in it is an error here, with the log's last words, and no dead program."""

from __future__ import annotations

import subprocess
from pathlib import Path

from edgekd.errors import BackendError
from edgekd.export.tensorrt.log import last_lines

PATIENCE_S = 3600


def run(command: list[str], plan: Path, log: Path, who: str, request: str | None = None) -> None:
    """Run `command`, which writes `plan`, with `request` on its standard input and its words into `log`.

    Raises BackendError, which begins with `who`, when it fails, dies or takes too long.
    """
    with log.open("w") as file:
        try:
            done = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S, input=request
            )
        except subprocess.TimeoutExpired:
            raise BackendError(f"{who} was not done after {PATIENCE_S} s", "Build a smaller graph.") from None
    if done.returncode != 0 or not plan.is_file():
        how = f"died of signal {-done.returncode}" if done.returncode < 0 else "built nothing"
        raise BackendError(
            f"{who} {how}: {last_lines(log.read_text(errors='replace'))}",
            "Run edgekd lint on the graph; signal 9 is usually a lack of memory, which --workspace limits.",
        )
