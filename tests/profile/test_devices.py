from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest

from edgekd.catalog import BACKENDS, SCHEMES
from edgekd.errors import TargetError
from edgekd.profile import machine, measure_all
from edgekd.profile.abilities import obstacle, require_runnable, require_searchable
from edgekd.profile.device import Device
from edgekd.profile.devices import device_identity, list_devices, load_device
from edgekd.profile.machine import isa_features


def test_what_runs_here_has_a_backend_and_a_scheme() -> None:
    assert "x86-cpu" in [device.name for device in list_devices()]
    for device in list_devices():
        if obstacle(device) is None:
            assert device.backend in BACKENDS and device.scheme in SCHEMES
    runners = {row.name for row in BACKENDS.values() if row.runtime != "reference"}
    assert runners <= set(get_args(get_type_hints(Device)["backend"]))
    assert set(SCHEMES) <= set(get_args(get_type_hints(Device)["scheme"]))


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(TargetError, match=r"target: unknown device 'x86_cpu'\nKnown: x86-cpu") as caught:
        load_device("x86_cpu")
    assert caught.value.exit_code == 2
    with pytest.raises(TargetError, match="Known: jetson-thor-t4000, jetson-thor-t5000"):
        load_device("Thor")
    with pytest.raises(TargetError, match=r"'zzz'\n`edgekd targets`"):
        load_device("zzz")


def test_a_target_that_nothing_can_be_searched_for_says_what_can_be_done() -> None:
    with pytest.raises(TargetError, match="jetson-orin-nano: .*runs 'tensorrt'(?s:.*)edgekd export(?s:.*)spaces"):
        require_searchable(load_device("jetson-orin-nano"))


def test_a_target_of_another_processor_is_not_measured_here(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    require_runnable(device)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(TargetError, match="x86-cpu is for x86_64, AMD64, and this machine is riscv64"):
        require_runnable(device)
    with pytest.raises(TargetError, match="riscv64"):
        measure_all([], device)
    there = replace(device, host="ssh://board")
    require_runnable(there)
    with pytest.raises(TargetError, match="x86-cpu is at ssh://board, and students are searched(?s:.*)edgekd profile"):
        require_searchable(there)


def test_a_fingerprint_is_of_what_a_device_does_not_of_where_we_know_it_from() -> None:
    device = load_device("t4")
    memory = device.figures["memory"]

    def with_memory(**changes: Any) -> Device:
        return replace(device, figures={**device.figures, "memory": replace(memory, **changes)})

    assert with_memory(source="the board itself", note="seen").fingerprint() == device.fingerprint()
    assert replace(device, title="Tesla T4").fingerprint() == device.fingerprint()
    assert with_memory(value=15.0).fingerprint() != device.fingerprint()
    assert replace(device, formats=("fp32",)).fingerprint() != device.fingerprint()


def test_identity_is_stable_and_says_what_kernels_depend_on(device: Device) -> None:
    identity = device_identity(device)
    assert identity == device_identity(device)
    assert all(isinstance(value, str) and value for value in identity.values())
    assert {"target", "backend", "cpu", "isa", "cores", "onnxruntime"} <= set(identity)


def test_instruction_sets_are_read_by_our_names(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = "fpu sse avx2 fma avx512f avx512_vnni amx_bf16"
    monkeypatch.setattr(machine, "_cpuinfo", lambda: {"flags": flags})
    assert isa_features() == {"avx2", "fma", "avx512", "avx512_vnni", "amx_bf16"}
    assert machine.has_vnni() and machine.has_bf16()
    monkeypatch.setattr(machine, "_cpuinfo", lambda: {"Features": "fp asimd asimddp"})
    assert isa_features() == {"neon", "dotprod"} and machine.has_vnni()
    monkeypatch.setattr(machine, "_cpuinfo", lambda: {"flags": "avx2"})
    assert not machine.has_vnni() and not machine.has_bf16()
