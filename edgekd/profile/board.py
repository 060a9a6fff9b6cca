"""What a machine is, in the words of its own files and programs: board, system, CUDA, TensorRT, power, clocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.errors import TargetError
from edgekd.profile.device import Device, version_parts
from edgekd.profile.devices import list_devices
from edgekd.profile.jetpack import JetPack, of_l4t
from edgekd.profile.machine import cpu_name, cpuinfo, isa_features

FILES = {
    "model": "/proc/device-tree/model",
    "l4t": "/etc/nv_tegra_release",
    "nvpmodel": "/etc/nvpmodel.conf",
    "cpuinfo": "/proc/cpuinfo",
    "meminfo": "/proc/meminfo",
    "cuda": "/usr/local/cuda/version.json",
    "cuda_text": "/usr/local/cuda/version.txt",  # until CUDA 10
}
# The GPU's frequency driver: 17000000.gpu of an Orin, 57000000.gpu of a Nano, gv11b and gp10b of Xavier and TX2.
GPU_CLOCKS = [f"/sys/class/devfreq/*{name}*/*_freq" for name in ("gpu", "gv11b", "gp10b")]
TRTEXEC = ("trtexec", "/usr/src/tensorrt/bin/trtexec")  # NVIDIA's packages for Jetson do not put it on the PATH

# What a board calls itself, and the profiles it may be: of these the one with the memory that is there.
_FAMILIES = (
    ("orin nano", "jetson-orin-nano"),
    ("orin nx", "jetson-orin-nx"),
    ("agx orin", "jetson-agx-orin"),
    ("xavier nx", "jetson-xavier-nx"),
    ("xavier", "jetson-agx-xavier"),
    ("thor", "jetson-thor"),
    ("tx2", "jetson-tx2"),
    ("quill", "jetson-tx2"),  # the name of its developer kit in JetPack 4, from memory
    ("nano", "jetson-nano"),
)
_PROCESSORS = {"x86_64": "x86-cpu", "aarch64": "arm64-cpu"}

Read = Callable[[Sequence[str]], Mapping[str, str]]
Run = Callable[[Sequence[str]], tuple[int | None, str]]


@dataclass(frozen=True)
class Board:
    """None is what the machine does not tell. `clocks_mhz` are of the GPU now, `power_modes` nvpmodel's by name."""

    machine: str
    cpu: str
    isa: tuple[str, ...]
    memory_gib: float | None
    model: str | None
    l4t: str | None
    jetpack: JetPack | None
    jetpack_version: str | None
    cuda: str | None
    trtexec: str | None
    tensorrt: str | None
    gpus: tuple[str, ...]
    power_mode: str | None
    power_modes: dict[str, int]
    clocks_mhz: dict[str, int]
    clocks: str | None

    @property
    def is_jetson(self) -> bool:
        return self.l4t is not None

    @property
    def clocks_locked(self) -> bool | None:
        """Whether the GPU's clock cannot move, as after `jetson_clocks`."""
        if not {"min", "max"} <= set(self.clocks_mhz):
            return None
        return self.clocks_mhz["min"] == self.clocks_mhz["max"]

    def summary(self) -> dict[str, Any]:
        """As a condition of what is measured there."""
        release = self.jetpack
        span = dict.fromkeys((release.first, release.last)) if release is not None else {}
        jetpack = self.jetpack_version or " to ".join(span) or None
        record = {
            "model": self.model,
            "memory_gib": self.memory_gib,
            "l4t": self.l4t,
            "jetpack": jetpack,
            "cuda": self.cuda,
            "tensorrt": self.tensorrt,
            "gpus": list(self.gpus) or None,
            "power_mode": self.power_mode,
            "gpu_clocks_mhz": self.clocks_mhz or None,
            "clocks_locked": self.clocks_locked,
        }
        return {key: value for key, value in record.items() if value is not None}


def probe(read: Read, run: Run) -> Board:
    """Ask a machine; nothing is changed there.

    `read` gives the texts of the files that fit its patterns, `run` a program's exit code (None: there is none such)
    and its words.
    """
    texts = dict(read([*FILES.values(), *GPU_CLOCKS]))
    file = {name: texts.get(path, "") for name, path in FILES.items()}
    info = cpuinfo(file["cpuinfo"])
    machine = run(["uname", "-m"])[1].strip()
    l4t = _l4t(file["l4t"])
    trtexec, tensorrt = _tensorrt(run)
    jetson_package = _package(run, "nvidia-jetpack") if l4t else None
    memory = re.search(r"MemTotal:\s+(\d+) kB", file["meminfo"])
    cuda = re.search(r'"cuda"\s*:\s*\{[^}]*?"version"\s*:\s*"([\d.]+)"', file["cuda"])
    cuda = cuda or re.search(r"CUDA Version ([\d.]+)", file["cuda_text"])
    code, clocks = run(["jetson_clocks", "--show"]) if l4t else (None, "")
    code_smi, smi = run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return Board(
        machine=machine,
        cpu=cpu_name(info, machine),
        isa=tuple(sorted(isa_features(info))),
        memory_gib=round(int(memory[1]) / 2**20, 2) if memory else None,
        model=file["model"].strip() or None,
        l4t=l4t,
        jetpack=of_l4t(l4t) if l4t else None,
        jetpack_version=jetson_package.split("-")[0].split("+")[0] if jetson_package else None,
        cuda=cuda[1] if cuda else None,
        trtexec=trtexec,
        tensorrt=tensorrt,
        gpus=tuple(line.strip() for line in smi.splitlines() if line.strip()) if code_smi == 0 else (),
        power_mode=power_mode(run),
        power_modes={name: int(id) for id, name in _POWER_MODEL.findall(file["nvpmodel"])},
        clocks_mhz=_clocks(texts),
        clocks=clocks.strip() if code == 0 else None,
    )


_POWER_MODEL = re.compile(r"<\s*POWER_MODEL ID=(\d+) NAME=(\S+)\s*>")


def power_mode(run: Run) -> str | None:
    """The name of nvpmodel's mode, such as MAXN; None where there is none."""
    code, said = run(["nvpmodel", "-q"])
    found = re.search(r"NV Power Mode:\s*(\S+)", said)
    return found[1] if code == 0 and found else None


def find_profile(board: Board, where: str) -> Device:
    """The profile of a machine that nobody has named. Raises TargetError where it is not plain."""
    if board.is_jetson:
        return _jetson(board, where)
    if board.gpus:
        raise TargetError(
            f"{where} has the GPU {board.gpus[0]} and the processor {board.cpu}: which of them is the target?",
            f"Name it: x86-cpu@{where}, or a GPU of `edgekd targets` before the @.",
        )
    if board.machine not in _PROCESSORS:
        raise TargetError(
            f"{where} is a {board.machine}, for which there is no profile", "Name one: ./mine.yaml@ssh://"
        )
    return next(device for device in list_devices() if device.name == _PROCESSORS[board.machine])


def _jetson(board: Board, where: str) -> Device:
    family = _family(board)
    found = [device for device in list_devices() if family is not None and device.name.startswith(family)]
    is_super = any(name.endswith("SUPER") for name in board.power_modes)
    if any(device.name.endswith("-super") for device in found) and is_super:
        found = [device for device in found if device.name.endswith("-super") or _gigabytes(device) < 8]
    else:
        found = [device for device in found if not device.name.endswith("-super")]
    if not found:
        raise TargetError(
            f"{where} calls itself {board.model!r}: no profile is known for that",
            f"Name one of `edgekd targets`, such as jetson-orin-nano@{where}",
        )
    fitting = [device for device in found if _gigabytes(device) >= (board.memory_gib or 0)]
    return min(fitting, key=_gigabytes) if fitting else max(found, key=_gigabytes)


def _family(board: Board) -> str | None:
    model = re.sub(r"[-_]", " ", (board.model or "").lower())
    if model.strip() == "jetson agx":  # how an AGX Xavier calls itself in JetPack 4, from memory
        return "jetson-agx-xavier"
    return next((name for word, name in _FAMILIES if word in model), None)


def _gigabytes(device: Device) -> float:
    figure = device.figures.get("memory")
    return figure.value if figure is not None else 0.0


def check(board: Board, device: Device, where: str) -> list[str]:
    """What differs from the profile and does not forbid measuring. Raises TargetError for what does."""
    if device.architectures and board.machine not in device.architectures:
        raise TargetError(
            f"target {device.name} is for {', '.join(device.architectures)}, and {where} is {board.machine}",
            f"Leave out the name: --target {where} finds the profile.",
        )
    family = _family(board)
    if device.kind == "jetson" and (not board.is_jetson or (family and not device.name.startswith(family))):
        raise TargetError(
            f"target {device.name}, and {where} is {board.model or 'no Jetson'}",
            f"Leave out the name: --target {where} finds the profile.",
        )
    warnings = []
    if board.jetpack is not None and device.jetpack is not None:
        low, high = device.jetpack.min, device.jetpack.max
        if version_parts(board.jetpack.last) < version_parts(low):
            warnings.append(f"{where} has JetPack {board.jetpack.last}, older than the profile's {low}")
        if high is not None and version_parts(board.jetpack.first) > version_parts(high):
            warnings.append(f"{where} has JetPack {board.jetpack.first}, newer than the profile's {high}")
    if board.is_jetson and board.clocks_locked is False:
        warnings.append("the GPU's clock was free to move: --lock-clocks holds it, with sudo")
    return warnings


def _l4t(text: str) -> str | None:
    """36.4.3 of `# R36 (release), REVISION: 4.3, GCID: ...`."""
    found = re.search(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else None


def _tensorrt(run: Run) -> tuple[str | None, str | None]:
    """trtexec's path and its version; else the version of the library's package."""
    for path in TRTEXEC:
        code, said = run([path, "--help"])
        if code is None:
            continue
        from edgekd.export.tensorrt.log import parse  # its package needs torch, which a processor does not

        version = parse(said).version
        if version is not None:
            return path, ".".join(map(str, version))
    for package in ("libnvinfer10", "libnvinfer8", "libnvinfer-bin"):
        found = _package(run, package)
        if found:
            return None, ".".join(re.findall(r"\d+", found)[:3])
    return None, None


def _package(run: Run, name: str) -> str | None:
    code, said = run(["dpkg-query", "--show", "--showformat=${Version}", name])
    return said.strip() or None if code == 0 else None


def _clocks(texts: Mapping[str, str]) -> dict[str, int]:
    """{min, cur, max} of the GPU's clock in MHz, of the first driver that tells."""
    out: dict[str, int] = {}
    for path, text in texts.items():
        found = re.fullmatch(r"/sys/class/devfreq/.*/(min|cur|max)_freq", path)
        if found and text.strip().isdigit():
            out.setdefault(found[1], round(int(text) / 1e6))
    return out
