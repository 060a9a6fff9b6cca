"""MLPerf's ways to ask and to count, for a latency that is no MLPerf result.

MLPerf Inference Rules, section "Scenarios", and its LoadGen. Single-stream: one image a query, the next query when the
last is answered, at least 600 s; counted by the 90th percentile as LoadGen's early stopping bounds it from above, for
which it takes 64 queries. Offline: all images in one query, at least 24,576 of them and 600 s; counted by images a
second. What is not kept here: images are random and the same in every query, and nobody has reviewed anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekd.errors import ConfigError
from edgekd.intervals import nearest_rank, upper_bound

DISCLAIMER = "by MLPerf's definition, on random images; not an MLPerf result"
QUANTILE, CONFIDENCE = 0.9, 0.99


@dataclass(frozen=True)
class Scenario:
    """Least duration in s, and least number of images, of a run that keeps the rules."""

    name: str
    seconds: float
    images: int

    def calls(self, batch: int) -> int:
        """How many calls of `batch` images that is."""
        return -(-self.images // batch)

    def count(self, samples_ns: tuple[int, ...], batch: int) -> dict[str, Any]:
        """{name, is, metric, value, unit, queries, images, seconds, short_of} of a run; `short_of` in words.

        Single-stream adds `p90_ms` as it was seen; `value` is its upper bound, None with fewer than 64 queries.
        """
        seconds, images = sum(samples_ns) / 1e9, batch * len(samples_ns)
        short = [f"{seconds:.1f} s, and MLPerf asks for {self.seconds:g}"] if seconds < self.seconds else []
        short += [f"{images} images, and MLPerf asks for {self.images}"] if images < self.images else []
        record: dict[str, Any] = {"name": self.name, "is": DISCLAIMER}
        if self.name == "offline":
            record |= {"metric": "throughput", "value": images / seconds, "unit": "images/s", "queries": 1}
        else:
            ordered = sorted(samples_ns)
            bound = upper_bound(ordered, QUANTILE, CONFIDENCE)
            record |= {
                "metric": "p90, 99 % upper bound",
                "value": None if bound is None else bound / 1e6,
                "unit": "ms",
                "queries": len(ordered),
                "p90_ms": nearest_rank(ordered, QUANTILE) / 1e6,
            }
        return {**record, "images": images, "seconds": round(seconds, 3), "short_of": short}


SCENARIOS = {row.name: row for row in (Scenario("single-stream", 600, 64), Scenario("offline", 600, 24_576))}


def find_scenario(name: str, batches: tuple[int, ...]) -> Scenario:
    """The scenario of that name. Raises ConfigError for batches that it does not have."""
    if name not in SCENARIOS:
        raise ConfigError(f"--scenario: unknown {name!r}", f"Choose of {', '.join(SCENARIOS)}.")
    if name == "single-stream" and set(batches) != {1}:
        raise ConfigError(
            "--scenario single-stream asks one image at a time", "Leave out --batch, or use --scenario offline."
        )
    return SCENARIOS[name]
