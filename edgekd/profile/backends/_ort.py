"""What the sessions of ONNX Runtime have in common: options, inputs, and the profile of their layers."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

PROFILE_WARMUP = 5
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
_KERNEL = "_kernel_time"


def session_options(threads: int, profile_to: Path | None = None) -> Any:
    """`threads` threads for an operator, operators one after another; a profile in the directory where one is named."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to / "profile")
    return options


def signature(session: Any) -> dict[str, tuple[np.dtype[Any], tuple[int | None, ...]]]:
    """Type and shape of every input of an `onnxruntime.InferenceSession`, None for a dynamic dimension."""
    return {
        item.name: (
            np.dtype(_DTYPES[item.type]),
            tuple(size if isinstance(size, int) else None for size in item.shape),
        )
        for item in session.get_inputs()
    }


def layer_times(profile: Path, runs: int) -> list[dict[str, Any]]:
    """{name, op, provider, ms} of every node by the last `runs` runs of a profile, ms their median, in whole us.

    A node appears once a run, as an event of category Node whose name ends in `_kernel_time`.
    """
    events = json.loads(profile.read_text())
    durations: dict[str, list[int]] = {}
    about: dict[str, tuple[str, str]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            name = event["name"].removesuffix(_KERNEL)
            durations.setdefault(name, []).append(event["dur"])
            about[name] = (event["args"]["op_name"], event["args"]["provider"])
    return [
        {"name": name, "op": about[name][0], "provider": about[name][1], "ms": statistics.median(values[-runs:]) / 1e3}
        for name, values in durations.items()
    ]
