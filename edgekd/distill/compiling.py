"""torch.compile of the student, where it pays: a few steps are timed with and without it.

A compiled network rounds differently, so `auto`, which goes by the clock, may give two runs different last bits. The
choice is kept in the checkpoint: a resumed run goes on as it began.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor

from edgekd.errors import RunError
from edgekd.models.taps import Tapped

BACKEND = "inductor"
STEPS = 5  # timed with and without, the median counts
WORTH_TRYING = 600.0  # seconds of training left: a compilation takes tens of them and has saved a tenth


def compile_student(student: Tapped, mode: str, forward: Callable[[], Tensor], steps_left: int) -> str:
    """Compile `student`, with mode `auto` only if that is faster; the network is as it was after. Says what was done.

    `forward` runs the student on a batch of the training and gives a scalar. Raises RunError where `on` cannot be had.
    """
    state = deepcopy(student.model.state_dict())
    training = student.model.training
    student.model.train()
    try:
        if mode == "on":
            return _always(student, forward)
        return _if_faster(student, forward, steps_left)
    finally:
        student.model.train(training)
        student.model.load_state_dict(state)
        student.model.zero_grad(set_to_none=True)


def _always(student: Tapped, forward: Callable[[], Tensor]) -> str:
    student.run = torch.compile(student.model, backend=BACKEND, dynamic=False)
    try:
        _seconds(forward, 1)
    except Exception as error:  # whatever the compiler raises
        student.run = student.model
        raise RunError(
            f"distill.compile: {type(student.model).__name__} cannot be compiled: {_reason(error)}",
            "Set distill.compile to off.",
        ) from error
    return "compiled"


def _if_faster(student: Tapped, forward: Callable[[], Tensor], steps_left: int) -> str:
    plain = _seconds(forward, STEPS)
    if plain * steps_left < WORTH_TRYING:
        return f"not compiled: about {plain * steps_left:.0f} s of training are too few"
    student.run = torch.compile(student.model, backend=BACKEND, dynamic=False, fullgraph=True)
    try:
        _seconds(forward, 1)
        compiled = _seconds(forward, STEPS)
    except Exception as error:  # a graph break, or whatever the compiler raises
        student.run = student.model
        return f"not compiled: {_reason(error)}"
    verdict = f"a step takes {plain * 1e3:.1f} ms as it is and {compiled * 1e3:.1f} ms compiled"
    if compiled < plain:
        return f"compiled: {verdict}"
    student.run = student.model
    return f"not compiled: {verdict}"


def _seconds(forward: Callable[[], Tensor], steps: int) -> float:
    """The median of so many forward and backward passes."""
    taken = []
    for _ in range(steps):
        started = time.perf_counter()
        value = forward()
        torch.autograd.backward(value)
        value.item()  # a GPU has to finish
        taken.append(time.perf_counter() - started)
    return sorted(taken)[steps // 2]


def _reason(error: Exception) -> str:
    """The first lines of what are often pages."""
    return " ".join(str(error).split())[:200] or type(error).__name__
