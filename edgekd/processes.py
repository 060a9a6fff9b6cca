"""Several processes, one run: `torchrun --nproc-per-node N -m edgekd ...` starts them, accelerate joins them.

The first process runs the stages and writes; the others come in where a network is trained (see `distill.parallel`).
"""

from __future__ import annotations

import atexit
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState

T = TypeVar("T")

PATIENCE = timedelta(days=7)  # the others wait while the first process searches, quantizes or measures


def count() -> int:
    """How many processes share this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def device() -> torch.device:
    """Where this process trains: its own GPU, or the CPU."""
    import torch

    if count() > 1:
        own: torch.device = _state().device
        return own
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        _state().wait_for_everyone()


def broadcast(value: Any) -> Any:
    """The first process's `value`, in every process."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    _state()
    return broadcast_object_list([value])[0]


def gather(value: T) -> list[T]:
    """Every process's value, in the order of ranks, in every process."""
    if count() == 1:
        return [value]
    from accelerate.utils import gather_object

    _state()
    values: list[T] = gather_object([value])
    return values


def _state() -> PartialState:
    import torch
    from accelerate import PartialState

    if not torch.distributed.is_initialized():
        atexit.register(_leave)
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def _leave() -> None:
    """End the group while the interpreter is whole.

    The thread that ran the last collective still drops its tensors, and needs the interpreter for it: where it comes
    too late the process aborts with its work done. Asleep, this thread lets it in.
    """
    import torch

    time.sleep(0.2)
    torch.distributed.destroy_process_group()
