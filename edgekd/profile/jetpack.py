"""JetPack: what each release of NVIDIA's system for Jetson boards brings with it."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.profile.device import Device, version_parts

# L4T and CUDA of both, TensorRT of the second and of public posts.
_LISTED = "jetson-stats f41d5ca, jetson-containers dd206bf"
_SPLIT = f"{_LISTED}; where it begins and ends: from memory"


@dataclass(frozen=True)
class JetPack:
    """Releases `first` to `last`: versions of L4T, CUDA, TensorRT and Python, and the GPUs they are for."""

    first: str
    last: str
    l4t: str
    cuda: str
    tensorrt: str
    python: str
    compute_capabilities: tuple[float, ...]
    source: str


JETPACKS = (
    JetPack("4.6", "4.6", "32.6.1", "10.2", "8.0.1", "3.6", (5.3, 6.2, 7.2), _SPLIT),
    JetPack("4.6.1", "4.6.6", "32.7.1 to 32.7.6", "10.2", "8.2.1", "3.6", (5.3, 6.2, 7.2), _SPLIT),
    JetPack("5.0.2", "5.0.2", "35.1", "11.4", "8.4.1", "3.8", (7.2, 8.7), _SPLIT),
    JetPack("5.1", "5.1.6", "35.2.1 to 35.6.4", "11.4", "8.5.2", "3.8", (7.2, 8.7), _SPLIT),
    JetPack("6.0", "6.0", "36.3", "12.2", "8.6.2", "3.10", (8.7,), f"{_LISTED}; CUDA: from memory"),
    JetPack("6.1", "6.2.2", "36.4.0 to 36.5", "12.6", "10.3.0", "3.10", (8.7,), _LISTED),
    JetPack("7.0", "7.1", "38.2 to 38.4", "13.0", "10.13", "3.12", (11.0,), _LISTED),
    JetPack("7.2", "7.2.2", "39.0 to 39.2", "13.2", "10.16", "3.12", (8.7, 11.0), f"{_LISTED}; TensorRT: from memory"),
)


def releases(device: Device) -> list[JetPack]:
    """The releases that support `device`, oldest first; none where it is no Jetson."""
    span = device.jetpack
    if span is None:
        return []
    low, high = version_parts(span.min), version_parts(span.max) if span.max is not None else (float("inf"),)
    return [
        release
        for release in JETPACKS
        if device.compute_capability in release.compute_capabilities
        and version_parts(release.last) >= low
        and version_parts(release.first) <= high
    ]


def of_l4t(l4t: str) -> JetPack | None:
    """The releases that brought this version of L4T, such as 36.4.3; None where it is in none of them."""
    version = version_parts(l4t)
    for release in JETPACKS:
        first, _, last = release.l4t.partition(" to ")
        low, high = version_parts(first), version_parts(last or first)
        if low <= version and version[: len(high)] <= high:
            return release
    return None
