from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import Any

import pytest

from edgekd import doctor
from edgekd.doctor import diagnose
from edgekd.profile import list_devices


def test_every_check_says_what_it_found_and_a_failed_one_what_to_do(tmp_path: Path) -> None:
    checks = {check.name: check for check in diagnose()}
    assert {"python", "numpy", "torch", "onnxruntime providers", "processor", "gpu driver", "disk"} <= set(checks)
    assert "target x86-cpu" in checks
    assert all(check.detail for check in checks.values())
    assert all(check.ok or check.fix for check in checks.values())
    assert "CPUExecutionProvider" in checks["onnxruntime providers"].detail


def test_a_machine_without_a_gpu_driver_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    check = doctor._gpu()
    assert check.ok and check.detail.startswith("none")


def test_a_processor_that_lacks_an_instruction_set_cannot_be_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "isa_features", frozenset)
    (check,) = [check for check in doctor._targets() if check.name == "target x86-cpu"]
    assert not check.ok and "avx2" in check.detail and check.fix


def test_targets_of_other_machines_are_no_fault_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {check.name: check for check in doctor._targets()}
    assert "target x86-cpu" in names and not {"target arm64-cpu", "target jetson-orin-nano"} & set(names)
    assert names["other targets"].ok and str(len(list_devices()) - 1) in names["other targets"].detail
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    (none,) = doctor._targets()
    assert not none.ok and none.fix
