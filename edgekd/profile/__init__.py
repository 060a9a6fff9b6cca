"""Run artifacts where they ship, and say how long they take there."""

from __future__ import annotations

from edgekd.profile.device import Device
from edgekd.profile.devices import device_identity, list_devices, load_device
from edgekd.profile.inference import predict
from edgekd.profile.latency import measure, measure_all, profile
from edgekd.profile.latency_table import LatencyTable, graph_latency_ms, network_latency_ms, operator_latency_ms
from edgekd.profile.machine import isa_features

__all__ = [
    "Device",
    "LatencyTable",
    "device_identity",
    "graph_latency_ms",
    "isa_features",
    "list_devices",
    "load_device",
    "measure",
    "measure_all",
    "network_latency_ms",
    "operator_latency_ms",
    "predict",
    "profile",
]
