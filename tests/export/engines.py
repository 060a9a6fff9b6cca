"""Files and builders that stand for NVIDIA's where there are none: all of them simulated."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.export.tensorrt.graph import OnnxGraph

INPUT = (None, 3, 32, 32)


def plan(path: Path, version: tuple[int, ...] = (10, 3, 0, 30), sms: int | None = None, size: int = 100) -> Path:
    """The header of an engine and nothing that runs: of TensorRT-RTX where `sms`, its mask of SMs, is given."""
    magic = b"ftrt" if sms is None else b"vtrt"
    head = magic + struct.pack("<IQQ", 0, 1 if sms is None else 2, size) + bytes(version)
    head += b"\0" * 4 if sms is None else magic
    head += struct.pack("<I", 0x4E474E45 if sms is None else sms)
    path.write_bytes(head.ljust(size, b"\0"))
    return path


def graph(formats: str = "", opset: int = 18, **facts: Any) -> OnnxGraph:
    """A student with a dynamic batch, as `read_graph` describes it."""
    inputs = facts.pop("inputs", {"images": INPUT})
    return OnnxGraph(Path("student.onnx"), opset, inputs, frozenset(formats.split()), **facts)


def write_onnx(path: Path, *, shape: tuple[Any, ...] = ("batch", 3, 4, 4), domain: str = "", opset: int = 18) -> Path:
    """images -> Relu -> logits, or an operator of another domain in place of Relu."""
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "logits")]
    relu = helper.make_node("FusedRelu" if domain else "Relu", ["images"], ["logits"], name="relu", domain=domain)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(helper.make_graph([relu], "g", *([v] for v in io)), opset_imports=opsets), path)
    return path


def write_halves(path: Path) -> Path:
    """An FP16 graph: its input is cast, and its constant is FP16."""
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 3, 4, 4)) for name in ("images", "logits")]
    nodes = [
        helper.make_node("Cast", ["images"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Add", ["half", "one"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["logits"], to=TensorProto.FLOAT),
    ]
    one = numpy_helper.from_array(np.ones(1, np.float16), "one")
    made = helper.make_graph(nodes, "g", io[:1], io[1:], [one])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


SIMULATED_TRTEXEC = """#!{python}
import os, signal, struct, sys
version = {version}
base = 1000 if version[0] < 10 else 10000
banner = f"TensorRT.trtexec [TensorRT v{{version[0] * base + version[1] * 100 + version[2]}}] # trtexec (simulated)"
print("&&&& RUNNING", banner, flush=True)
options = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
if "--saveEngine" in options:
    print("[I] Start parsing network model.", flush=True)
    if {behaviour!r} == "crash":
        print("[I] [TRT] Local timing cache in use.", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if {behaviour!r} == "refuse":
        print("[E] Error[3]: conv1.weight: invalid weights type of Int8")
        print("&&&& FAILED", banner)
        sys.exit(1)
    with open(options["--saveEngine"], "wb") as file:
        file.write((b"ftrt" + struct.pack("<IQQ", 0, 1, 100) + bytes([*version, 1])).ljust(100, b"\\0"))
    print("[I] Engine built in 1.5 sec.")
print("&&&& PASSED", banner)
"""

SIMULATED_TENSORRT = '''"""Simulated: what a build touches of TensorRT's Python API; asked for, written down."""

import json, os, struct
from enum import IntEnum

__version__ = os.environ["SIMULATED_VERSION"]
MAJOR = int(__version__.split(".")[0])
ASKED = {}


class ILogger:
    Severity = IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")


BuilderFlag = IntEnum("BuilderFlag", "VERSION_COMPATIBLE GPU_FALLBACK" + (" FP16 INT8" if MAJOR < 11 else ""))
NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", "STRONGLY_TYPED", start=1)
MemoryPoolType = IntEnum("MemoryPoolType", "WORKSPACE")
HardwareCompatibilityLevel = IntEnum("HardwareCompatibilityLevel", "AMPERE_PLUS SAME_COMPUTE_CAPABILITY")
DeviceType = IntEnum("DeviceType", "GPU DLA")


class Cache:
    def serialize(self):
        return b"timings"


class Config:
    def set_flag(self, flag):
        ASKED.setdefault("flags", []).append(flag.name)

    def set_memory_pool_limit(self, pool, size):
        ASKED["workspace"] = size

    def add_optimization_profile(self, profile):
        ASKED["shapes"] = profile.shapes

    def create_timing_cache(self, content):
        ASKED["timing_cache"] = len(content)
        return Cache()

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache

    def get_timing_cache(self):
        return self.cache


class Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, *shapes):
        self.shapes[name] = shapes


class Builder:
    def __init__(self, log):
        self.log = log

    def create_builder_config(self):
        return Config()

    def create_network(self, flags):
        ASKED["network"] = flags

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        self.log.log(ILogger.Severity.VERBOSE, "left out")
        self.log.log(ILogger.Severity.WARNING, "simulated " + json.dumps(ASKED))
        if os.environ.get("SIMULATED") == "crash":
            os.abort()
        if os.environ.get("SIMULATED") == "refuse":
            self.log.log(ILogger.Severity.ERROR, "Error Code 10: could not find any implementation")
            return None
        version = bytes(int(part) for part in __version__.split("."))
        return (b"ftrt" + struct.pack("<IQQ", 0, 1, 100) + version).ljust(100, b"\\0")


class OnnxParser:
    num_errors = 0

    def __init__(self, network, log):
        pass

    def parse_from_file(self, path):
        return True
'''
