from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.catalog import BACKENDS, SCHEMES
from edgekd.errors import TargetError
from edgekd.profile import devices
from edgekd.profile.devices import Device, device_identity, isa_features, list_devices, load_device


def test_every_profile_names_a_backend_and_a_scheme_that_exist() -> None:
    assert "x86-cpu" in [device.name for device in list_devices()]
    for device in list_devices():
        assert device.backend in BACKENDS and device.scheme in SCHEMES and device.title
        assert Device.from_json(json.loads(json.dumps(device.to_json()))) == device


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(TargetError, match=r"target: unknown device 'x86_cpu'\nKnown: x86-cpu") as caught:
        load_device("x86_cpu")
    assert caught.value.exit_code == 2


def test_a_profile_without_a_needed_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half.yaml").write_text("title: half\nkind: cpu\n")
    monkeypatch.setattr(devices, "PROFILES", tmp_path)
    with pytest.raises(TargetError, match=r"profiles/half.yaml: .*backend"):
        load_device("half")


def test_identity_is_stable_and_says_what_kernels_depend_on(device: Device) -> None:
    identity = device_identity(device)
    assert identity == device_identity(device)
    assert all(isinstance(value, str) and value for value in identity.values())
    assert {"target", "backend", "cpu", "isa", "cores", "onnxruntime"} <= set(identity)


def test_instruction_sets_are_read_by_our_names(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = "fpu sse avx2 fma avx512f avx512_vnni amx_bf16"
    monkeypatch.setattr(devices, "_cpuinfo", lambda: {"flags": flags})
    assert isa_features() == {"avx2", "fma", "avx512", "avx512_vnni", "amx_bf16"}
    assert devices.has_vnni() and devices.has_bf16()
    monkeypatch.setattr(devices, "_cpuinfo", lambda: {"flags": "avx2"})
    assert not devices.has_vnni() and not devices.has_bf16()
