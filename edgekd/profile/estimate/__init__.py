"""What a graph would take on a GPU that is not at hand: a roofline fitted to published tables."""

from __future__ import annotations

from edgekd.profile.estimate.estimate import LatencyEstimate, estimate, estimate_network
from edgekd.profile.estimate.kernels import read_network

__all__ = ["LatencyEstimate", "estimate", "estimate_network", "read_network"]
