"""Simulated Jetsons: a directory that stands for a board's root, with its files and programs that replay its words.

Lines of tegrastats are captures published with public repositories; `throttled` alters a clock in one, for a test. The
outputs of the simulated trtexec are ONNX Runtime's; its durations are made up, and nothing measured.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edgekd.errors import EdgekdError, HostError
from edgekd.profile.board import Board
from edgekd.profile.device import Device
from edgekd.profile.hosts.address import Address
from edgekd.profile.hosts.agent import Agent, probe
from edgekd.profile.hosts.remote import RemoteWorker


@dataclass
class Simulated:
    """What a board says of itself; `trtexec` is its banner's number."""

    model: str
    l4t: str
    memory_kb: int
    trtexec: int
    modes: dict[str, int]
    mode: str
    tegrastats: list[str]
    files: dict[str, str] = field(default_factory=dict)
    package: str = ""
    clocks: tuple[int, int] = (114_750_000, 1_300_500_000)  # least and most, in Hz


NANO_JP4 = Simulated(
    model="NVIDIA Jetson Nano Developer Kit",
    l4t="# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, DATE: Sat Feb 19 17:05:08 2022",
    memory_kb=4_059_272,
    trtexec=8201,
    modes={"MAXN": 0, "5W": 1},
    mode="MAXN",
    tegrastats=[
        "RAM 1283/3964MB (lfb 254x4MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [5%@921,1%@921,0%@921,"
        "0%@921] EMC_FREQ 7%@1600 GR3D_FREQ 22%@921 APE 25 PLL@33C CPU@35.5C PMIC@100C GPU@34C AO@40C thermal@34.75C "
        "POM_5V_IN 2591/2591 POM_5V_GPU 121/121 POM_5V_CPU 445/445"
    ],
    files={
        "/usr/local/cuda/version.txt": "CUDA Version 10.2.300\n",
        "/sys/class/devfreq/57000000.gpu/min_freq": "76800000\n",
        "/sys/class/devfreq/57000000.gpu/max_freq": "921600000\n",
    },
    clocks=(76_800_000, 921_600_000),
)
XAVIER_NX_JP4 = Simulated(
    model="NVIDIA Jetson Xavier NX Developer Kit",
    l4t="# R32 (release), REVISION: 6.1, GCID: 27863751, BOARD: t186ref, EABI: aarch64, DATE: Mon Jul 26 19:36:31 2021",
    memory_kb=7_953_476,
    trtexec=8001,
    modes={"MODE_15W_2CORE": 0, "MODE_15W_6CORE": 2, "MODE_10W_4CORE": 4},
    mode="MODE_15W_6CORE",
    tegrastats=[
        "RAM 2448/7771MB (lfb 4x2MB) SWAP 0/3885MB (cached 0MB) CPU [9%@1190,10%@1190,8%@1190,9%@1190,off,off] "
        "EMC_FREQ 7% GR3D_FREQ 33% AO@33C GPU@34C PMIC@100C AUX@33C CPU@34.5C thermal@33.6C "
        "VDD_IN 3902/3611 VDD_CPU_GPU_CV 1331/1180 VDD_SOC 997/941"
    ],
    files={"/usr/local/cuda/version.txt": "CUDA Version 10.2.300\n"},
)
AGX_ORIN_JP5 = Simulated(
    model="Jetson AGX Orin Developer Kit",
    l4t="# R35 (release), REVISION: 3.1, GCID: 32827747, BOARD: t186ref, EABI: aarch64, DATE: Sun Mar 19 15:19:21 2023",
    memory_kb=64_302_188,
    trtexec=8502,
    modes={"MAXN": 0, "MODE_15W": 1, "MODE_30W": 2, "MODE_50W": 3},
    mode="MAXN",
    tegrastats=[
        "04-24-2023 00:01:24 RAM 1282/62795MB (lfb 15152x4MB) SWAP 0/31398MB (cached 0MB) CPU [0%@729,0%@729,0%@729] "
        "EMC_FREQ 0%@2133 GR3D_FREQ 0%@0 GR3D2_FREQ 0%@0 VIC_FREQ 729 APE 174 CV0@-256C CPU@42.593C Tboard@32C "
        "SOC2@39.343C Tdiode@33.25C SOC0@39.375C CV1@-256C GPU@-256C tj@42.593C SOC1@40.468C CV2@-256C "
        "VDD_GPU_SOC 2399mW/2399mW VDD_CPU_CV 400mW/400mW VIN_SYS_5V0 4032mW/4032mW NC 0mW/0mW "
        "VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
    ],
    files={"/usr/local/cuda/version.json": '{"cuda" : {"name" : "CUDA SDK", "version" : "11.4.19"}}'},
    package="5.1.1-b56",
)
ORIN_NANO_JP6 = Simulated(
    model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    l4t="# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8 01:49:37 2025",
    memory_kb=7_802_120,
    trtexec=100300,
    modes={"15W": 0, "25W": 1, "MAXN_SUPER": 2, "7W": 3},
    mode="25W",
    tegrastats=[
        "RAM 2493/7620MB (lfb 1x4MB) SWAP 0/3810MB (cached 0MB) CPU [5%@729,3%@729,0%@729,0%@729,0%@729,1%@729] "
        "GR3D_FREQ 14%@[420] cpu@45.5C soc2@44.1C soc0@44.5C gpu@44.2C tj@45.5C soc1@44C "
        "VDD_IN 4521mW/4521mW VDD_CPU_GPU_CV 1320mW/1320mW VDD_SOC 1080mW/1080mW"
    ],
    files={
        "/usr/local/cuda/version.json": '{"cuda" : {"name" : "CUDA SDK", "version" : "12.6.11"}}',
        "/sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
        "/sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
        "/sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
        "/sys/class/hwmon/hwmon3/oc3_event_cnt": "37\n",
    },
    package="6.2+b77",
)
AGX_ORIN_JP7 = Simulated(
    model="NVIDIA Jetson AGX Orin Developer Kit",
    l4t="# R39 (release), REVISION: 2.0, GCID: 0, BOARD: generic, EABI: aarch64, DATE: Wed Jul 1 00:00:00 2026",
    memory_kb=64_324_608,
    trtexec=101600,
    modes={"MAXN": 0, "MODE_15W": 1, "MODE_30W": 2, "MODE_50W": 3},
    mode="MAXN",
    tegrastats=[
        "07-25-2026 09:08:28 RAM 20642/62817MB (lfb 1x2MB) CPU [23%@2201,10%@2201,4%@2201,14%@2201] EMC_FREQ 3%@3199 "
        "GR3D_FREQ 12%@[1300,1300] NVENC0 off NVDEC0 off NVJPG0 off VIC off OFA off NVDLA0 off PVA0_FREQ off APE 174 "
        "cpu@52.968C/52.968C soc2@48.406C/48.406C soc0@49.531C/49.531C gpu@47.625C/47.625C tj@52.968C/52.968C "
        "VDD_GPU_SOC 5139mW/5139mW/5139mW VDD_CPU_CV 3268mW/3268mW/3268mW VIN_SYS_5V0 5500mW/5500mW/5500mW"
    ],
)
THOR_JP7 = Simulated(
    model="NVIDIA Jetson AGX Thor Developer Kit",
    l4t="# R38 (release), REVISION: 2.1, GCID: 0, BOARD: generic, EABI: aarch64, DATE: Wed Sep 3 00:00:00 2025",
    memory_kb=128_766_976,
    trtexec=101300,
    modes={"MAXN": 0, "120W": 1},
    mode="120W",
    tegrastats=[
        "08-08-2026 21:00:39 RAM 8353/125749MB (lfb 31x4MB) CPU [90%@2601,75%@2601,off,7%@2601] EMC_FREQ 34%@4266 "
        "GR3D_FREQ 87%@[1574,1574,1574] NVENC0_FREQ @1691 VIC off cpu@58.25C/61.75C tj@66.625C/66.625C "
        "gpu@56.937C/66.625C soc012@55.375C/58.781C soc345@55.812C/60.031C VDD_GPU 37939mW/8660mW/37939mW "
        "VDD_CPU_SOC_MSS 30059mW/12281mW/30059mW VIN_SYS_5V0 15486mW/7424mW/15486mW VIN 124486mW/36487mW/124486mW"
    ],
    files={"/usr/local/cuda/version.json": '{"cuda" : {"name" : "CUDA SDK", "version" : "13.0.0"}}'},
    package="7.0-b128",
)

_SUDO = """#!/bin/sh
[ "$1" = -n ] || exit 9
shift
grep -q nosudo {root}/behaviour && echo "sudo: a password is required" && exit 1
echo "$@" >> {root}/calls
command=$1
shift
exec {root}/bin/$command "$@"
"""
_NVPMODEL = """#!/bin/sh
if [ "$1" = -m ]; then
  sed -n "s/^< POWER_MODEL ID=$2 NAME=\\(.*\\) >$/\\1/p" {root}/etc/nvpmodel.conf > {root}/mode
else
  printf 'NV Power Mode: %s\\n' "$(cat {root}/mode)"
fi
"""
_CLOCKS = """#!/bin/sh
case "$1" in
  --show) echo "Error: Run this script($0) as a root user"; exit 1;;
  --store) echo stored > "$2";;
  --restore) cat "$2" > {root}/restored;;
esac
"""
_TEGRASTATS = """#!/bin/sh
[ "$1" = --interval ] || exit 9
while read -r line; do sleep 0.05; printf '%s\\n' "$line"; last=$line; done < {root}/tegrastats.txt
while :; do sleep 0.05; printf '%s\\n' "$last"; done
"""
_DPKG = '#!/bin/sh\nfor name; do :; done\n[ "$name" = nvidia-jetpack ] || exit 1\nprintf %s "{package}"\n'
_TRTEXEC = '''#!{python}
"""A simulated trtexec: engines are copies of the graph, durations are made up."""
import json, re, shutil, sys, time
words = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
with open("{root}/trtexec.txt", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
BANNER = "TensorRT.trtexec [TensorRT v{number}] # trtexec " + " ".join(sys.argv[1:])
print("&&&& RUNNING " + BANNER, flush=True)
old = {number} < 8600
if "onnx" in words:
    if "refuse" in open("{root}/behaviour").read():
        print("[11/22/2026-10:00:02] [E] [TRT] ModelImporter.cpp:773: While parsing node number 0 [Conv]:")
        print("&&&& FAILED " + BANNER)
        sys.exit(1)
    assert ("buildOnly" in words) == old and ("skipInference" in words) != old
    shutil.copy(words["onnx"], words["saveEngine"])
    print("[11/22/2026-10:01:41] [I] Engine built in 99.5012 sec.")
elif "loadEngine" in words:
    import numpy as np, onnxruntime
    session = onnxruntime.InferenceSession(words["loadEngine"], providers=["CPUExecutionProvider"])
    shapes = {{item.name: item.shape for item in session.get_inputs()}}
    for part in words.get("shapes", "").split(",") if words.get("shapes") else ():
        name, shape = part.rsplit(":", 1)
        shapes[name] = [int(side) for side in shape.split("x")]
    feeds = {{}}
    for part in words["loadInputs"].split(","):
        name, file = part.split(":", 1)
        feeds[name] = np.fromfile(file, np.float32).reshape(shapes[name])
    outputs = session.run(None, feeds)
    if "exportOutput" in words:
        rows = [dict(name=o.name, dimensions="x".join(map(str, a.shape)), values=a.ravel().tolist())
                for o, a in zip(session.get_outputs(), outputs)]
        json.dump(rows, open(words["exportOutput"], "w"))
    print("[11/22/2026-10:02:00] [I] Starting inference", flush=True)
    n = max(int(words["iterations"]), int(1000 * float(words["duration"]) / 2))
    time.sleep(float(words["duration"]))
    warm = 5 if old else 0
    times, at = [], 0.0
    for i in range(warm + n):
        latency = 9.0 if i < warm else 1.64 + 0.01 * (i % 5)
        times.append(dict(startH2dMs=at, endD2hMs=at + latency, h2dMs=0.1, computeMs=latency - 0.2, d2hMs=0.1,
                          latencyMs=latency))
        at += latency
    json.dump(times, open(words["exportTimes"], "w"))
    print("[11/22/2026-10:02:03] [I] Warmup completed 5 queries over 200 ms", flush=True)
print("&&&& PASSED " + BANNER)
'''


def write(board: Simulated, root: Path) -> Path:
    """The board's root at `root`."""
    texts = {
        "/proc/device-tree/model": board.model + "\0",
        "/etc/nv_tegra_release": board.l4t + "\n",
        "/proc/meminfo": f"MemTotal:        {board.memory_kb} kB\n",
        "/proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nFeatures\t: fp asimd asimddp\n",
        "/etc/nvpmodel.conf": "".join(f"< POWER_MODEL ID={id} NAME={name} >\n" for name, id in board.modes.items()),
        "/mode": board.mode,
        "/tegrastats.txt": "".join(f"{line}\n" for line in board.tegrastats),
        "/behaviour": "",
        **board.files,
    }
    programs = {
        "uname": "#!/bin/sh\necho aarch64\n",
        "sudo": _SUDO,
        "nvpmodel": _NVPMODEL,
        "jetson_clocks": _CLOCKS,
        "tegrastats": _TEGRASTATS,
        "dpkg-query": _DPKG,
        "trtexec": _TRTEXEC,
    }
    words = {"root": root, "package": board.package, "python": sys.executable, "number": board.trtexec}
    for name, text in programs.items():
        texts[f"/bin/{name}"] = text.format(**words)
    for path, text in texts.items():
        file = Path(f"{root}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if path.startswith("/bin/"):
            file.chmod(0o755)
    return root


def throttled(board: Simulated, before: str, after: str) -> list[str]:
    """The board's lines at work, first with one clock, then with another: altered, not captured."""
    (line,) = board.tegrastats
    return [line.replace(before, after.split(" to ")[0])] * 4 + [line.replace(before, after.split(" to ")[1])] * 4


class Here:
    """The board at `root`, served by an agent on this machine without ssh."""

    where = "a simulated board"

    def __init__(self, root: Path, cache: Path, **options: Any) -> None:
        self.address = Address("board", python=sys.executable, cache=str(cache), simulated=str(root), **options)

    def worker(self, device: Device, threads: int) -> RemoteWorker:
        return RemoteWorker(self, self.address, device, threads)

    def probe(self) -> Board:
        with Agent(self, self.address) as agent:
            return probe(agent)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None: ...

    def spawn(self, command: Sequence[str], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)

    def explain(self, code: int, said: Sequence[str], op: str) -> EdgekdError:
        return HostError(f"{op}: exit code {code}: {said}", "Read it.")
