"""Everything the result of a stage depends on, an artifact or a file by its content and never by its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.artifacts import Checkpoint
from edgekd.config import TeacherConfig, map_names
from edgekd.pipeline.inputs import Inputs
from edgekd.stage import digest_file

# Raise a stage's number when its code changes what it computes: old results are then not taken for new ones.
VERSIONS = {"teacher": 2, "search": 3, "distill": 4, "quantize": 4, "export": 3, "profile": 3}


def depends_on(inputs: Inputs, name: str) -> dict[str, Any]:
    """Of stage `name`; this is fingerprinted, and kept in its stage.json."""
    config = inputs.config
    if name == "profile":
        return {
            "version": VERSIONS[name],
            "models": [model.fingerprint() for model in inputs.exported],
            "device": _device(inputs),
            "config": config.profile.model_dump(mode="json"),
        }
    common: dict[str, Any] = {"version": VERSIONS[name], "data": _data(inputs), "seed": config.seed}
    if name == "teacher":
        return {**common, "config": config.teacher.model_dump(mode="json", include={"name", "train"})}
    common["teacher"] = _first_teacher(inputs)
    if name == "search":
        if config.search.calibrate:
            common["distill"] = _distill(inputs)
        search = config.search.model_dump(mode="json")
        return {**common, "config": search, "latency": config.latency, "device": _device(inputs)}
    if name == "distill":
        return {**common, "student": inputs.student.fingerprint(), **_distill(inputs)}
    common["student"] = Checkpoint.load(inputs.out / "distill").fingerprint()
    common["device"] = _device(inputs)
    common["opset"] = inputs.opset
    if name == "quantize":
        quantize = config.quantize.model_dump(mode="json")
        quantize["qad"]["method"] = map_names(quantize["qad"]["method"], method_identity)
        return {**common, "config": quantize, "scheme": inputs.scheme}
    made = config.export.model_dump(mode="json", exclude={"opset"})
    return {**common, "config": made, "quantized": Checkpoint.load(inputs.out / "quantize").fingerprint()}


def method_identity(method: str) -> str:
    """A method's name; of a user's file its class and content."""
    file, _, name = method.rpartition(":")
    return f"{digest_file(Path(file))}:{name}" if file.endswith(".py") and Path(file).is_file() else method


def files_of_distill(inputs: Inputs) -> dict[str, Any]:
    """What distill reads besides the data and the teachers, by its content."""
    from edgekd.data import data_digest

    distill = inputs.config.distill
    files: dict[str, Any] = {"unlabelled": distill.unlabelled and data_digest(distill.unlabelled)}
    for key, value in (("table", distill.table), ("labels", distill.labels)):
        files[key] = digest_file(Path(value)) if isinstance(value, str) and Path(value).is_file() else value
    return files


def _distill(inputs: Inputs) -> dict[str, Any]:
    distill = inputs.config.distill.model_dump(mode="json", exclude={"checkpoint_seconds", "method", "store"})
    named = [(map_names({m.name: m.options}, method_identity), m.factor) for m in inputs.methods]
    return {
        "config": distill | files_of_distill(inputs),
        "methods": [[name, options, factor] for entry, factor in named for name, options in entry.items()],
        "teachers": [_teacher(teacher) for teacher in inputs.config.teachers],
    }


def _data(inputs: Inputs) -> dict[str, Any]:
    config = inputs.config
    return {
        "digest": inputs.data_digest,
        "val_fraction": config.val_fraction,
        "image_size": config.image_size,
        "seed": config.seed,
    }


def _device(inputs: Inputs) -> dict[str, Any]:
    return {"device": inputs.device.fingerprint(), "identity": inputs.device_identity}


def _first_teacher(inputs: Inputs) -> Any:
    """Without building it: its bytes and what the config says of it."""
    config = inputs.config.teacher
    return Checkpoint.load(inputs.out / "teacher").fingerprint() if config.source is None else _teacher(config)


def _teacher(config: TeacherConfig) -> Any:
    record = config.model_dump(mode="json", exclude={"train", "name"})
    if config.source is not None and config.source.startswith("file:"):
        path = Path(config.source[5:])
        record["source"] = digest_file(path) if path.is_file() else config.source
    return record
