"""Processes that `torchrun` or `accelerate launch` started: which one this is, and what the others have."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


def world() -> tuple[int, int]:
    """(rank, size): (0, 1) where this process was started alone."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return world()[0] == 0


def gather(value: T) -> list[T]:
    """Everyone's value, in the order of ranks, on every process."""
    if world()[1] == 1:
        return [value]
    from accelerate import PartialState
    from accelerate.utils import gather_object

    PartialState()  # joins the group
    values: list[T] = gather_object([value])
    return values
