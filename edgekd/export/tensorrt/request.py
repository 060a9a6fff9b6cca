"""What is asked of a builder: a graph, the batches it is for, and the builder's limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekd.errors import ConfigError
from edgekd.export.tensorrt.graph import OnnxGraph

Batch = tuple[int, int, int]
Hardware = Literal["ampere+", "same"]


@dataclass(frozen=True)
class BuildOptions:
    """What whoever builds may choose.

    `batch` is the least, usual and largest where the graph's batch is dynamic. `workspace` limits the scratch memory of
    a kernel, in MiB. An engine that is `version_compatible` loads in later versions too; a `hardware` compatible one on
    every GPU since Ampere, or every one of the same compute capability. `dla` is the core of a Jetson's accelerator;
    what it cannot run, the GPU does.
    """

    batch: Batch | None = None
    workspace: int | None = None
    version_compatible: bool = False
    hardware: Hardware | None = None
    dla: int | None = None


@dataclass(frozen=True, kw_only=True)
class BuildRequest(BuildOptions):
    """An engine of `graph` for sm_`compute_capability` (87 for sm_87).

    `timing_cache` is a file that a builder which times kernels reads and writes.
    """

    graph: OnnxGraph
    compute_capability: int
    timing_cache: Path | None = None

    def shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """Every input with a dynamic batch, with its shape at `batch`."""
        return {
            name: tuple(batch if side is None else side for side in shape)
            for name, shape in self.graph.inputs.items()
            if None in shape
        }


def parse_batch(text: str | None) -> Batch | None:
    """(1, 8, 32) of "1,8,32", (4, 4, 4) of "4". Raises ConfigError."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts) or len(parts) not in (1, 3):
        raise ConfigError(f"--batch: {text!r} is not MIN,OPT,MAX", "Write 1,8,32, or 4 for always four.")
    numbers = [int(part) for part in parts] * (3 if len(parts) == 1 else 1)
    least, usual, largest = numbers
    if not 1 <= least <= usual <= largest:
        raise ConfigError(f"--batch: {text!r} does not rise from 1 or more", "Write MIN,OPT,MAX such as 1,8,32.")
    return least, usual, largest
