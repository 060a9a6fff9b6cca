"""run.json: the resolved config, the versions, the machine and the stages of a run."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgekd.artifacts import HUB
from edgekd.pipeline.inputs import Inputs
from edgekd.profile.machine import cpu_name
from edgekd.stage import StageResult, write_json

PACKAGES = ("edgekd", "torch", "torchvision", "timm", "torchao", "onnx", "onnxscript", "onnxruntime", "numpy")


def write_record(inputs: Inputs, results: Sequence[StageResult], started: float) -> None:
    """After a run that did nothing, it says so, and the rest is as it was."""
    data: dict[str, Any] = {"name": Path(inputs.config.data).name}
    teacher: dict[str, Any] = {"name": inputs.config.teacher.source or inputs.config.teacher.name}
    file = inputs.out / "run.json"
    old: Mapping[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    if "data" in inputs.__dict__:  # was read
        d = inputs.data
        splits = {"train": len(d.train), "val": len(d.val), "test": len(d.test)}
        data |= {"classes": d.num_classes, "input_shape": list(d.input_shape), **splits, "digest": d.digest}
    else:
        data = old.get("data", data)
    if all(result.cached for result in results) and old:
        teacher = old["teacher"]
    elif inputs.config.teacher.source is not None or (inputs.out / "teacher" / "stage.json").is_file():
        teacher |= _teacher(inputs)
    stages = [{"name": r.name, "seconds": r.seconds, "cached": r.cached, "fingerprint": r.fingerprint} for r in results]
    write_json(
        file,
        {
            "config": inputs.config.model_dump(mode="json"),
            "seed": inputs.config.seed,
            "versions": {name: version(name) for name in PACKAGES},
            "host": {"system": platform.platform(), "python": platform.python_version(), "cpu": cpu_name()},
            "data": data,
            "teacher": teacher,
            "seconds": time.time() - started,
            "stages": stages,
        },
    )


def _teacher(inputs: Inputs) -> dict[str, Any]:
    from edgekd.models import build_model, cost

    spec = inputs.teacher
    found = cost(build_model(spec), spec.input_shape)
    name = spec.name if spec.weights == HUB else f"{spec.name} ({Path(str(spec.weights)).name})"
    return {"name": name, "params": found.params, "macs": found.macs}
