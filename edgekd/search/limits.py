"""The limits a student must hold: on parameters, MACs and latency."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.errors import TargetError
from edgekd.search.latency import Latency
from edgekd.search.spaces import Genotype, Space


@dataclass(frozen=True)
class Limits:
    """None is no limit. `latency_ms` is batch 1 on one thread of the target."""

    max_params: int | None = None
    max_macs: int | None = None
    latency_ms: float | None = None

    def admit(self, space: Space, genotype: Genotype, latency: Latency) -> bool:
        """Whether a genotype holds every limit by its closed-form cost and predicted latency."""
        point = space.point(genotype)
        return (
            (self.max_params is None or point.params <= self.max_params)
            and (self.max_macs is None or point.macs <= self.max_macs)
            and (self.latency_ms is None or latency.within(genotype, self.latency_ms))
        )

    def broken(self, params: int, macs: int, latency_ms: float) -> str | None:
        """The first limit these figures break, with the figure, or None."""
        if self.max_params is not None and params > self.max_params:
            return f"search.max_params {self.max_params:,}: {params:,} parameters"
        if self.max_macs is not None and macs > self.max_macs:
            return f"search.max_macs {self.max_macs:,}: {macs:,} MACs"
        if self.latency_ms is not None and latency_ms > self.latency_ms:
            return f"latency {format_ms(self.latency_ms)}: {format_ms(latency_ms)}"
        return None

    def require_feasible(self, space: Space, latency: Latency, target: str) -> None:
        """Raises TargetError, naming the limit and the nearest point, when the smallest point breaks one."""
        point = space.point(space.smallest())
        nearest = f"({point.genotype})"
        if self.max_params is not None and point.params > self.max_params:
            raise TargetError(
                f"search.max_params {self.max_params:,}: the smallest point of {space.name} {nearest} "
                f"has {point.params:,}",
                f"Set search.max_params to {point.params} or more.",
            )
        if self.max_macs is not None and point.macs > self.max_macs:
            raise TargetError(
                f"search.max_macs {self.max_macs:,}: the smallest point of {space.name} {nearest} has {point.macs:,}",
                f"Set search.max_macs to {point.macs} or more.",
            )
        if self.latency_ms is not None and not latency.within(point.genotype, self.latency_ms):
            fastest = format_ms(latency.predict(point.genotype))
            raise TargetError(
                f"latency {format_ms(self.latency_ms)}: the fastest point of {space.name} {nearest} "
                f"takes {fastest} on {target}",
                f"Allow more than {fastest}, or choose a faster target.",
            )


def format_ms(ms: float) -> str:
    return f"{ms:.3g} ms"
