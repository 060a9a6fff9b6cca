"""What this machine has and lacks for a run."""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from edgekd.errors import BackendError
from edgekd.profile.abilities import obstacle
from edgekd.profile.devices import list_devices
from edgekd.profile.driver import probe
from edgekd.profile.machine import cpu_name, has_bf16, has_vnni, isa_features

_IMPORTS = ("torch", "torchao", "onnxruntime")  # compiled: a version on disk does not say that they load


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str
    fix: str = ""


def diagnose() -> list[Check]:
    """Every check; none writes anything."""
    return [
        _python(),
        *_packages(),
        *_loads(),
        _providers(),
        _processor(),
        _gpu(),
        _builders(),
        *_targets(),
        _load(),
        _disk(),
    ]


def _python() -> Check:
    return Check("python", sys.version_info >= (3, 10), platform.python_version(), "Install Python 3.10 or newer.")


def _packages() -> list[Check]:
    checks = []
    for requirement in requires("edgekd") or ():
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^A-Za-z0-9_.-]", requirement)[0]
        try:
            checks.append(Check(name, True, version(name)))
        except PackageNotFoundError:
            checks.append(Check(name, False, "absent", f"pip install '{requirement}'"))
    return checks


def _loads() -> list[Check]:
    checks = []
    logging.disable(logging.WARNING)  # torchao's import logs a deprecation inside torch
    for name in _IMPORTS:
        try:
            import_module(name)
        except Exception as error:  # whatever a broken wheel raises
            checks.append(Check(f"import {name}", False, str(error), f"pip install --force-reinstall {name}"))
        else:
            checks.append(Check(f"import {name}", True, "loads"))
    logging.disable(logging.NOTSET)
    return checks


def _processor() -> Check:
    notes = [cpu_name(), f"{os.cpu_count()} cores", " ".join(sorted(isa_features())) or "no known instruction set"]
    notes += [] if has_vnni() else ["no 8-bit dot product: INT8 gains less"]
    notes += [] if has_bf16() else ["no bf16 arithmetic: training is in FP32"]
    return Check("processor", True, "; ".join(notes))


def _providers() -> Check:
    try:
        found: list[str] = import_module("onnxruntime").get_available_providers()
    except Exception as error:  # reported by `import onnxruntime` too
        return Check("onnxruntime providers", False, str(error), "pip install --force-reinstall onnxruntime")
    fix = "pip install --force-reinstall onnxruntime"
    return Check("onnxruntime providers", "CPUExecutionProvider" in found, ", ".join(found), fix)


def _gpu() -> Check:
    """The NVIDIA driver, asked directly: no package needed, nothing started on the GPU. Having none is fine."""
    try:
        driver = probe()
    except BackendError as error:
        return Check("gpu driver", False, error.what, error.fix)
    if driver is None:
        return Check("gpu driver", True, "none: only processor targets run here")
    gpus = ", ".join(f"sm_{sm}" for sm in driver.compute_capabilities) or "no GPU"
    return Check("gpu driver", True, f"NVIDIA, for CUDA up to {driver.cuda}; {gpus}")


def _builders() -> Check:
    """What builds TensorRT engines here. Having nothing is fine: they can be built on the target."""
    from edgekd.export.tensorrt import BUILDERS

    found = {name: builder.version() for name, builder in BUILDERS.items()}
    here = ", ".join(f"{name} {version}" for name, version in found.items() if version is not None)
    return Check("engine builders", True, here or "none: engines are built on the target")


def _targets() -> list[Check]:
    """The targets that this machine can build and measure for; the others are no fault of it."""
    devices = list_devices()
    here = [device for device in devices if obstacle(device) is None]
    checks = []
    for device in here:
        lacking = sorted(set(device.requires) - isa_features())
        detail = f"lacks {' '.join(lacking)}" if lacking else device.title
        checks.append(Check(f"target {device.name}", not lacking, detail, "Use a machine that has it."))
    others = f"{len(devices) - len(here)} for which nothing can be measured from here; `edgekd targets` lists them"
    fix = "Use a machine with an x86-64 or 64-bit Arm processor."
    return [*checks, Check("other targets", bool(here), others, fix)]


def _load() -> Check:
    if not hasattr(os, "getloadavg"):
        return Check("load", True, "unknown on this system")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    note = "; busy: latencies measured now are noisy" if load > 0.7 * cores else ""
    return Check("load", True, f"{load:.1f} on {cores} cores{note}")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Check("disk", free > 2, f"{free:.1f} GiB free here", "Free some space, or set --out to another disk.")
