"""Schedules count in shares of the run: what papers write as 20 of 240 epochs is 1/12, whatever a run's length.

The share behind a step is step / steps, in steps of the optimizer: neither the size of a batch, nor the parts it is
computed in, nor how often an image is in it, enters.
"""

from __future__ import annotations

import math

from edgekd.distill.methods._base import Method, Setup
from edgekd.errors import ConfigError


def run_steps(method: Method, setup: Setup, option: str) -> int:
    """Steps of the run that `option` follows. Raises ConfigError where the setup does not know them."""
    if setup.steps < 1:
        raise ConfigError(
            f"distill.method {type(method).__name__.lower()}: {option} follows the run, and its length is unknown",
            "Give Setup the steps of the whole run.",
        )
    return setup.steps


def warmup(step: int, steps: int, share: float) -> float:
    """A line that reaches 1 with the last step of the first `share` of the run, from above 0; 1 throughout for 0."""
    return min(1.0, (step + 1) / (share * steps)) if share else 1.0


def progress(x: float, start: float, end: float) -> float:
    """0 up to `start`, a line between, 1 from `end` on; a jump to 1 where the two are one."""
    if x >= end:
        return 1.0
    return 0.0 if x <= start else (x - start) / (end - start)


def cosine(x: float) -> float:
    """From 0 at x = 0 to 1 at x = 1 along half a cosine."""
    return 0.5 * (1 - math.cos(math.pi * x))
