"""The public names, pinned: adding one is a decision, removing one breaks somebody."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgekd

PUBLIC = [
    "BackendError",
    "BundleError",
    "Checkpoint",
    "ConfigError",
    "DataError",
    "Dataset",
    "Device",
    "DiskFullError",
    "EdgekdError",
    "Engine",
    "InputError",
    "LatencyReport",
    "ModelError",
    "ModelSpec",
    "OnnxModel",
    "ParityError",
    "RunConfig",
    "RunDirectoryError",
    "RunError",
    "TargetError",
    "build_model",
    "compress",
    "list_devices",
    "load_checkpoint",
    "load_config",
    "load_dataset",
    "load_device",
    "measure",
    "plan",
    "predict",
    "run_stage",
    "status",
    "verify_bundle",
    "write_bundle",
]


def test_the_names_are_these() -> None:
    assert edgekd.__all__ == PUBLIC == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(edgekd))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there_and_documented(name: str) -> None:
    thing = getattr(edgekd, name)
    assert thing.__name__ == name
    assert thing.__doc__ or issubclass(thing, Exception)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        edgekd.nonsense  # noqa: B018


def test_importing_is_light() -> None:
    script = "import sys, edgekd; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pydantic')))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_the_version_is_the_packages() -> None:
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert re.findall(r'^version = "(.*)"$', project, re.MULTILINE) == [edgekd.__version__]


def test_errors_have_exit_codes() -> None:
    for name in PUBLIC:
        if name.endswith("Error"):
            error = getattr(edgekd, name)
            assert issubclass(error, edgekd.EdgekdError)
            assert error.exit_code == (2 if issubclass(error, edgekd.InputError) else 3)
