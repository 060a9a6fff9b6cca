"""What the stages are given: the config resolved, and the artifacts of the stages before them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.artifacts import Checkpoint, ModelSpec, OnnxModel
from edgekd.catalog import METHODS, SCORERS, SPACES, find
from edgekd.config import RunConfig, method_choices
from edgekd.errors import ConfigError
from edgekd.profile.abilities import opset_for, require_searchable, scheme_for
from edgekd.profile.devices import device_identity, load_device

if TYPE_CHECKING:
    from edgekd.data import Dataset


class Inputs:
    """Of one run in the directory `out`. Raises InputError for names, targets and formats that are none."""

    def __init__(self, config: RunConfig, out: Path) -> None:
        self.config, self.out = config, out
        self.device = load_device(config.target)
        require_searchable(self.device)
        self.methods = method_choices(config.distill.method)
        for choice in self.methods:
            if ":" not in choice.name:  # else a user's own, imported where it is needed
                find(METHODS, "distill.method", choice.name)
        find(SCORERS, "search.scorer", config.search.scorer)
        find(SPACES, "search.space", config.search.space)
        self.scheme = scheme_for(self.device, config.quantize.scheme).name
        self.opset = opset_for(self.device, self.scheme, config.export.opset)

    def validate(self) -> None:
        """Read the method's options, the data and the teacher before anything is written."""
        from edgekd.distill import check_inputs
        from edgekd.distill.methods._combined import make_method

        _, row = make_method(self.methods, self.config.distill.label_smoothing, self.config.seed)
        teacher = self.config.teacher
        if str(teacher.source).endswith(".onnx") and self.config.export.resize is not None:
            raise ConfigError(
                "export.resize: an ONNX teacher is measured as it is, and takes images of its own size",
                "Leave it out, or name the teacher's torch weights.",
            )
        if str(teacher.source).endswith(".onnx") and teacher.image_size is not None:
            raise ConfigError(
                "teacher.image_size: the first teacher is measured as it is, and an ONNX file does not resize",
                "Name it under teachers, or export it with a Resize at its start.",
            )
        check_inputs(self.data, row, self.config.distill, self.config.seed)
        _ = self.data if teacher.source is None else self.teacher
        _ = self.others

    @cached_property
    def data(self) -> Dataset:
        return self.load(self.config.image_size)

    def load(self, image_size: int | None) -> Dataset:
        """The data at a size of the images; None leaves them as they are."""
        from edgekd.data import load_dataset

        config = self.config
        return load_dataset(config.data, val_fraction=config.val_fraction, seed=config.seed, image_size=image_size)

    @cached_property
    def data_digest(self) -> str:
        from edgekd.data import data_digest

        return data_digest(self.config.data)

    @cached_property
    def device_identity(self) -> dict[str, str]:
        return device_identity(self.device)

    @property
    def teacher_spec(self) -> ModelSpec:
        """The untrained reference net of a run without a teacher."""
        data = self.data
        name = self.config.teacher.name
        return ModelSpec("edgekd", name, data.num_classes, data.input_shape, mean=data.mean, std=data.std)

    @cached_property
    def teacher(self) -> ModelSpec:
        from edgekd.models import resolve_teacher

        if self.config.teacher.source is None:
            checkpoint = Checkpoint.load(self.out / "teacher")
            return replace(checkpoint.spec, weights=str(checkpoint.weights))
        return resolve_teacher(self.config.teacher, self.data)

    @cached_property
    def others(self) -> list[ModelSpec]:
        """The further teachers that distill learns from."""
        from edgekd.models import resolve_teacher

        for i, teacher in enumerate(self.config.teachers):
            if teacher.source is None:
                raise ConfigError(f"teachers.{i}.source is required", "Only the first teacher is trained on the spot.")
        return [resolve_teacher(teacher, self.data) for teacher in self.config.teachers]

    @property
    def student(self) -> ModelSpec:
        chosen = json.loads((self.out / "search" / "search.json").read_text())["chosen"]
        return ModelSpec.from_json(chosen["spec"])

    @property
    def exported(self) -> list[OnnxModel]:
        directory = self.out / "export"
        rows = json.loads((directory / "export.json").read_text())
        return [OnnxModel.from_json({**row, "path": str(directory / row["path"])}) for row in rows]
