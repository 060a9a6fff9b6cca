"""Whether the GPU of a target is this machine's."""

from __future__ import annotations

from edgekd.profile.device import Device
from edgekd.profile.driver import missing_gpu


def no_gpu(device: Device) -> tuple[str, str] | None:
    """Why nothing runs on `device`'s GPU here, and the way out; None where it can."""
    if device.compute_capability is None:
        return (
            f"target {device.name} has no GPU, and {device.backend} runs on one",
            "Name a GPU of `edgekd targets`, or leave out --backend.",
        )
    reason = missing_gpu(device)
    if reason is None:
        return None
    return (
        f"target {device.name}: {reason}",
        "Run it on the device itself; `edgekd export --bundle` packs what is needed there.",
    )
