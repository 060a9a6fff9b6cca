"""The profiles that edgekd brings: complete, sourced, and in agreement with themselves and with the hardware's laws."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from edgekd.profile.device import PROFILES, UNITS, Device, version_parts
from edgekd.profile.devices import list_devices
from edgekd.profile.jetpack import JETPACKS, releases

DEVICES = list_devices()
GPUS = [device for device in DEVICES if device.kind != "cpu"]
JETSONS = [device for device in DEVICES if device.kind == "jetson"]

# By compute capability: the architecture's name, the formats beyond FP32, FP32 and FP16 operations an SM and clock.
AMPERE = "fp16 bf16 int8 int4"
LAWS: dict[float, tuple[str, str, int, int]] = {
    5.3: ("Maxwell", "fp16", 256, 512),
    6.2: ("Pascal", "fp16", 256, 512),
    7.2: ("Volta", "fp16 int8", 128, 1024),
    7.5: ("Turing", "fp16 int8 int4", 128, 1024),
    8.0: ("Ampere", AMPERE, 128, 2048),
    8.6: ("Ampere", AMPERE, 256, 1024),
    8.7: ("Ampere", AMPERE, 256, 2048),
    8.9: ("Ada Lovelace", f"{AMPERE} fp8", 256, 1024),
    9.0: ("Hopper", "fp16 bf16 int8 fp8", 256, 4096),
    11.0: ("Blackwell", "fp16 bf16 int8 fp8 fp4", 256, 8192),
    12.0: ("Blackwell", "fp16 bf16 int8 fp8 fp4", 256, 1024),
}


def each(devices: list[Device]) -> Any:
    return pytest.mark.parametrize("device", devices, ids=lambda device: device.name)


def value(device: Device, figure: str) -> float | None:
    return device.figures[figure].value if figure in device.figures else None


def test_there_are_enough_of_each_kind() -> None:
    kinds = [device.kind for device in DEVICES]
    assert kinds.count("jetson") == 13 and kinds.count("gpu") >= 19 and kinds.count("cpu") == 2
    assert {device.gpu_architecture for device in DEVICES} >= {
        "Turing",
        "Ampere",
        "Ada Lovelace",
        "Hopper",
        "Blackwell",
    }
    assert [device.name for device in DEVICES] == sorted(file.stem for file in PROFILES.glob("*.yaml"))
    assert len({device.title for device in DEVICES}) == len(DEVICES)


@each(DEVICES)
def test_json_round_trip(device: Device) -> None:
    assert Device.from_json(json.loads(json.dumps(device.to_json()))) == device


@each(GPUS)
def test_a_gpu_has_what_is_asked_of_every_gpu(device: Device) -> None:
    wanted = {"memory", "memory_bandwidth", "sms", "tensor_cores", "peak_fp32", "peak_fp16"}
    wanted |= {"dla_cores"} if device.kind == "jetson" else {"power"}
    assert wanted <= set(device.figures)
    assert (device.backend, device.scheme) == ("tensorrt", "tensorrt") and device.tensorrt is not None
    assert [*device.figures] == [name for name in UNITS if name in device.figures], "figures in the order of UNITS"


@each(GPUS)
def test_formats_are_those_of_the_compute_capability(device: Device) -> None:
    assert device.compute_capability is not None
    architecture, formats, _, _ = LAWS[device.compute_capability]
    assert device.gpu_architecture == architecture
    assert set(device.formats) == {"fp32", *formats.split()}
    assert ("fp8" in device.formats) == (device.compute_capability >= 8.9)
    assert ("peak_fp8" in device.figures) == ("fp8" in device.formats)
    assert "int8" in device.formats or "peak_int8" not in device.figures


@each(GPUS)
def test_peaks_are_what_sms_and_clock_give(device: Device) -> None:
    assert device.compute_capability is not None
    sms, clock = value(device, "sms"), value(device, "gpu_clock")
    if clock is None:
        assert device.name == "h100-pcie", "its clock is not known"
        return
    assert sms is not None
    _, _, fp32, fp16 = LAWS[device.compute_capability]
    rates = {"peak_fp32": fp32, "peak_fp16": fp16, "peak_fp8": 2 * fp16, "peak_int8": 2 * fp16}
    for name, rate in rates.items():
        peak = device.figures.get(name)
        if peak is None:
            continue
        hopper = device.compute_capability == 9.0 and name == "peak_fp32"
        assert not hopper or "FP32 at 1.98" in device.figures["gpu_clock"].note
        assert peak.value == pytest.approx(sms * (1.98 if hopper else clock) * rate / 1e3, rel=0.015), name
        written = re.fullmatch(r"computed: sms x gpu_clock x (\d+)", peak.source)
        assert written is None or int(written[1]) == rate, name


@each(GPUS)
def test_int8_is_twice_fp16_on_tensor_cores_or_the_profile_says_why_not(device: Device) -> None:
    fp16, int8, cores = (value(device, name) for name in ("peak_fp16", "peak_int8", "tensor_cores"))
    assert fp16 is not None
    if not cores:
        assert int8 is None
    elif int8 is None:
        assert any("INT8" in figure.note and "not known" in figure.note for figure in device.figures.values())
    else:
        assert int8 == pytest.approx(2 * fp16, rel=0.03)


@each(JETSONS)
def test_a_jetsons_tensorrt_is_that_of_its_jetpacks(device: Device) -> None:
    found = releases(device)
    assert found and device.jetpack is not None and device.tensorrt is not None
    assert device.jetpack.max is not None and device.tensorrt.max is not None
    assert version_parts(found[0].first) <= version_parts(device.jetpack.min) <= version_parts(found[0].last)
    assert device.jetpack.max == found[-1].last
    assert device.tensorrt.min == found[0].tensorrt
    if device.tensorrt.max != found[-1].tensorrt:
        assert device.tensorrt.max in device.tensorrt.source, "an own version is explained"
        assert device.name.startswith(("jetson-agx-orin", "jetson-thor"))


def test_jetpacks_follow_each_other() -> None:
    versions = [version_parts(version) for release in JETPACKS for version in (release.first, release.last)]
    assert versions == sorted(versions)
    assert all(release.source and release.cuda and release.python for release in JETPACKS)


def test_no_release_for_what_is_no_jetson() -> None:
    assert [device.name for device in DEVICES if device.kind != "jetson" and releases(device)] == []


@each(DEVICES)
def test_power_modes_are_of_jetsons_and_have_ids_of_their_own(device: Device) -> None:
    assert not device.power_modes or device.kind == "jetson"
    ids = [mode.id for mode in device.power_modes if mode.id is not None]
    assert len(set(ids)) == len(ids) and all(mode.source for mode in device.power_modes)
