"""The targets of profiles/*.yaml, a user's own, and what must be equal for a measurement on one to still hold."""

from __future__ import annotations

import difflib
import os
import platform
from pathlib import Path

from edgekd.catalog import BACKENDS, find
from edgekd.errors import TargetError
from edgekd.profile.device import PROFILES, Device
from edgekd.profile.machine import cpu_name, isa_features, package_version

_GPU_PACKAGES = ("tensorrt", "tensorrt-rtx-cu13", "onnxruntime-ep-nv-tensorrt-rtx-cu13", "torch")


def list_devices() -> list[Device]:
    """Every target in `profiles/`, by name."""
    return [load_device(name) for name in _names()]


def load_device(target: str) -> Device:
    """The target of that name, or the one that a user's own `./my-board.yaml` describes.

    Raises TargetError with the nearest names when there is none, or with the field of the file that is wrong.
    """
    from edgekd.profile._schema import read_profile  # pydantic, which the measuring process has no use for

    if target.endswith(".yaml"):
        return read_profile(Path(target))
    names = _names()
    if target not in names:
        near = difflib.get_close_matches(target, names, n=3) or [name for name in names if target.lower() in name]
        known = f"Known: {', '.join(near)}. " if near else ""
        raise TargetError(
            f"target: unknown device {target!r}",
            f"{known}`edgekd targets` lists them all; a file of your own ends in .yaml.",
        )
    return read_profile(PROFILES / f"{target}.yaml")


def _names() -> list[str]:
    return sorted(file.stem for file in PROFILES.glob("*.yaml"))


def device_identity(device: Device) -> dict[str, str]:
    """What must be equal for a latency to still hold: processor, instruction sets, cores, OS kind, runtime version.

    The same from call to call on one machine; it goes into fingerprints. No clock, load or host name is in it, except
    the address of a device over SSH: nothing else of it is known here.
    """
    if device.host != "local":
        return {"target": device.name, "backend": device.backend, "host": device.host}
    found = {
        "target": device.name,
        "backend": device.backend,
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "isa": " ".join(sorted(isa_features())),
        "cores": str(os.cpu_count()),
        "onnxruntime": package_version("onnxruntime") or package_version("onnxruntime-gpu") or "absent",
    }
    if find(BACKENDS, "device.backend", device.backend).gpu:
        found |= {name: package_version(name) or "absent" for name in _GPU_PACKAGES}
    return found
