"""From a trained teacher and a target device to a small student, deployed and measured there.

The names below are the public API. Each is imported when it is first used, so `import edgekd` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "BackendError": "edgekd.errors",
    "BundleError": "edgekd.errors",
    "Checkpoint": "edgekd.artifacts",
    "ConfigError": "edgekd.errors",
    "DataError": "edgekd.errors",
    "Dataset": "edgekd.data",
    "Device": "edgekd.profile.device",
    "DiskFullError": "edgekd.errors",
    "EdgekdError": "edgekd.errors",
    "Engine": "edgekd.artifacts",
    "InputError": "edgekd.errors",
    "LatencyReport": "edgekd.artifacts",
    "ModelError": "edgekd.errors",
    "ModelSpec": "edgekd.artifacts",
    "OnnxModel": "edgekd.artifacts",
    "ParityError": "edgekd.errors",
    "RunConfig": "edgekd.config",
    "RunDirectoryError": "edgekd.errors",
    "RunError": "edgekd.errors",
    "TargetError": "edgekd.errors",
    "build_model": "edgekd.models",
    "compress": "edgekd.pipeline",
    "list_devices": "edgekd.profile.devices",
    "load_checkpoint": "edgekd.models",
    "load_config": "edgekd.config",
    "load_dataset": "edgekd.data",
    "load_device": "edgekd.profile.devices",
    "measure": "edgekd.profile",
    "plan": "edgekd.pipeline",
    "predict": "edgekd.profile",
    "run_stage": "edgekd.pipeline",
    "status": "edgekd.pipeline",
    "verify_bundle": "edgekd.bundle",
    "write_bundle": "edgekd.bundle",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgekd' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
