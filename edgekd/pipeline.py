"""The only place that orders the stages: teacher, search, distill, quantize, export, profile, report.

A stage's inputs name everything its result depends on, an artifact by the fingerprint of its content; so the same
command finds every stage cached, and a changed config redoes the stages it reaches and no others.
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import processes
from edgekd.artifacts import HUB, Checkpoint, ModelSpec, OnnxModel
from edgekd.catalog import METHODS, SCORERS, SPACES, find
from edgekd.config import RunConfig, TeacherConfig, TrainConfig, map_names, method_choices
from edgekd.errors import ConfigError, InputError, RunDirectoryError
from edgekd.progress import NullProgress, Progress
from edgekd.stage import RunDirectory, StageResult, digest_file, fingerprint, write_json

if TYPE_CHECKING:
    from edgekd.data import Dataset

STAGES = ("search", "distill", "quantize", "export", "profile")
TRAINED = ("teacher", *STAGES)  # a run without a teacher trains one first

# Raise a stage's number when its code changes what it computes: old results are then not taken for new ones.
VERSIONS = {"teacher": 2, "search": 3, "distill": 4, "quantize": 4, "export": 3, "profile": 3}

PACKAGES = ("edgekd", "torch", "torchvision", "timm", "torchao", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class PlannedStage:
    name: str
    cached: bool
    estimate_s: float | None
    note: str


def compress(
    config: RunConfig,
    out: Path,
    *,
    until: str | None = None,
    start: str | None = None,
    force: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the chain in `out` and return the report.

    `until` is the last stage, `start` the first one that is checked: those before it are taken as they are. `force`
    names stages that are done again. Raises InputError before anything is written, RunError when a stage fails.

    Of several processes (see `edgekd.processes`) the first does this; the others help it train and return {}.
    """
    chain = Chain(config, out, progress or NullProgress())
    if processes.rank():
        _help(chain)
        return {}
    try:
        return _compress(chain, until, start, force)
    finally:
        if not chain.training:  # else they are in the middle of it, and end with this process
            processes.broadcast(None)


def _help(chain: Chain) -> None:
    """Train along, as often as the first process asks for it."""
    while (work := processes.broadcast(None)) is not None:
        name, out = work
        getattr(chain, f"_{name}")(Path(out))


def _compress(chain: Chain, until: str | None, start: str | None, force: Sequence[str]) -> dict[str, Any]:
    out = chain.out
    names = chain.stages(until, start, force)
    if not all(stage.cached for stage in _walk(chain, names, force)):
        chain.validate()
    new = not out.is_dir() or not any(out.iterdir())
    with chain.run.locked():
        started = time.time()
        results = chain.taken_as_they_are(names)
        try:
            for name in names:
                results.append(chain.do(name, force=name in force))
                chain.record(results, started)
            chain.record([*results, *chain.still_valid(names)], started)
        except InputError:  # the input cannot be used: leave nothing half-written
            for partial in out.glob(".*.partial"):
                shutil.rmtree(partial)
            if new and not results:
                shutil.rmtree(out)
            raise
        from edgekd.report import build_report

        return build_report(out)


def run_stage(name: str, run: Path, *, force: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Stage `name` of an existing run, by the config in its run.json."""
    return compress(run_config(run), run, until=name, force=[name] if force else [], progress=progress)


def explain(run: Path, genotype: str) -> dict[str, Any]:
    """What the search of a finished run makes of an architecture, by the config in its run.json."""
    from edgekd.search.explain import explain

    chain = Chain(run_config(run), run, NullProgress())
    if chain.run.record("search") is None:
        raise RunDirectoryError(f"{run} holds no search", f"Run edgekd search {run} first.")
    return explain(
        run / "search",
        genotype,
        teacher=chain.teacher,
        data=chain.data,
        device=chain.device,
        config=chain.config.search,
        seed=chain.config.seed,
    )


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """The stages of a run, in their order."""
    return TRAINED if config.teacher.source is None else STAGES


def run_config(run: Path) -> RunConfig:
    """The config a run directory was made with."""
    file = run / "run.json"
    if not file.is_file():
        raise RunDirectoryError(f"{run} holds no run.json", "Name a directory that `edgekd compress --out` made.")
    return RunConfig.model_validate(json.loads(file.read_text())["config"])


def plan(
    config: RunConfig, out: Path, until: str | None = None, start: str | None = None, force: Sequence[str] = ()
) -> list[PlannedStage]:
    """What `compress` would do; writes nothing. Estimates come from one timed training step on this machine."""
    chain = Chain(config, out, NullProgress())
    stages = list(_walk(chain, chain.stages(until, start, force), force))
    if all(stage.cached for stage in stages):
        return stages
    chain.validate()
    estimates = _estimate(chain)
    return [stage if stage.cached else replace(stage, estimate_s=estimates[stage.name]) for stage in stages]


def _walk(chain: Chain, names: Sequence[str], force: Sequence[str]) -> list[PlannedStage]:
    """Cached or not, stage by stage; what follows a stage that has to run is not known before it has."""
    stages: list[PlannedStage] = []
    for name in names:
        known = all(stage.cached for stage in stages)
        cached = known and name not in force and chain.run.cached(name, chain.fingerprint(name))
        resumed = known and not cached and chain.run.partial(name, chain.fingerprint(name)).exists()
        note = "goes on where it stopped" if resumed else "" if known else "cached if the stage before gives the same"
        stages.append(PlannedStage(name, cached, 0.0 if cached else None, note))
    return stages


def status(run: Path) -> list[dict[str, Any]]:
    """One row a stage: done, partial or missing, and its seconds."""
    config = run_config(run)
    rows = []
    for name in stage_names(config):
        record = RunDirectory(run).record(name)
        partial = any(run.glob(f".{name}-*.partial"))
        state = "partial" if partial else "done" if record else "missing"
        rows.append({"stage": name, "state": state, "seconds": record["seconds"] if record else None})
    return rows


class Chain:
    """One run: what each stage needs, read back from the directories of the stages before it."""

    def __init__(self, config: RunConfig, out: Path, progress: Progress) -> None:
        from edgekd.profile.devices import load_device, opset_for, require_searchable, scheme_for

        self.config, self.out, self.progress = config, out, progress
        self.training = False  # with the other processes
        self.run = RunDirectory(out)
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

    # --- what is asked for ---------------------------------------------------------------------------------------

    @property
    def all_stages(self) -> tuple[str, ...]:
        return stage_names(self.config)

    def stages(self, until: str | None, start: str | None, force: Sequence[str]) -> list[str]:
        """The stages to go through. Raises ConfigError for a name that is none of them."""
        names = list(self.all_stages)
        for option, value in [("--until", until), ("--from", start), *(("--force", name) for name in force)]:
            if value is not None and value not in names:
                raise ConfigError(f"{option}: this run has no stage {value!r}", f"Its stages: {', '.join(names)}.")
        first, last = names.index(start) if start else 0, names.index(until) if until else len(names) - 1
        if first > last:
            raise ConfigError(f"--from {start} comes after --until {until}", f"Their order is {', '.join(names)}.")
        for name in names[:first]:
            if self.run.record(name) is None:
                raise RunDirectoryError(f"--from {start}: {self.out} has no {name} yet", f"Use --from {name}.")
        return names[first : last + 1]

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

    # --- inputs --------------------------------------------------------------------------------------------------

    @cached_property
    def data(self) -> Dataset:
        return self._load(self.config.image_size)

    def _load(self, image_size: int | None) -> Dataset:
        from edgekd.data import load_dataset

        config = self.config
        return load_dataset(config.data, val_fraction=config.val_fraction, seed=config.seed, image_size=image_size)

    @cached_property
    def data_inputs(self) -> dict[str, Any]:
        from edgekd.data import data_digest

        config = self.config
        return {
            "digest": data_digest(config.data),
            "val_fraction": config.val_fraction,
            "image_size": config.image_size,
            "seed": config.seed,
        }

    @property
    def teacher_spec(self) -> ModelSpec:
        """The untrained reference net of a run without a teacher."""
        data = self.data
        name = self.config.teacher.name
        return ModelSpec("edgekd", name, data.num_classes, data.input_shape, mean=data.mean, std=data.std)

    @cached_property
    def teacher(self) -> ModelSpec:
        if self.config.teacher.source is None:
            checkpoint = Checkpoint.load(self.out / "teacher")
            return replace(checkpoint.spec, weights=str(checkpoint.weights))
        from edgekd.models import resolve_teacher

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
    def teacher_inputs(self) -> Any:
        """The teacher's identity without building it: its bytes and what the config says of it."""
        config = self.config.teacher
        return Checkpoint.load(self.out / "teacher").fingerprint() if config.source is None else _teacher_inputs(config)

    @property
    def student(self) -> ModelSpec:
        chosen = json.loads((self.out / "search" / "search.json").read_text())["chosen"]
        return ModelSpec.from_json(chosen["spec"])

    @property
    def exported(self) -> list[OnnxModel]:
        directory = self.out / "export"
        rows = json.loads((directory / "export.json").read_text())
        return [OnnxModel.from_json({**row, "path": str(directory / row["path"])}) for row in rows]

    @property
    def _distill_files(self) -> dict[str, Any]:
        """What else distill reads, by its content."""
        from edgekd.data import data_digest

        distill = self.config.distill
        files: dict[str, Any] = {"unlabelled": distill.unlabelled and data_digest(distill.unlabelled)}
        for key, value in (("table", distill.table), ("labels", distill.labels)):
            files[key] = digest_file(Path(value)) if isinstance(value, str) and Path(value).is_file() else value
        return files

    def inputs(self, name: str) -> dict[str, Any]:
        """Everything the result of stage `name` depends on."""
        config = self.config
        if name == "profile":
            return {
                "version": VERSIONS[name],
                "models": [model.fingerprint() for model in self.exported],
                "device": self._device_inputs,
                "config": config.profile.model_dump(mode="json"),
            }
        common: dict[str, Any] = {"version": VERSIONS[name], "data": self.data_inputs, "seed": config.seed}
        if name == "teacher":
            return {**common, "config": config.teacher.model_dump(mode="json", include={"name", "train"})}
        common["teacher"] = self.teacher_inputs
        if name == "search":
            search = config.search.model_dump(mode="json")
            if config.search.calibrate:
                distill = config.distill.model_dump(mode="json", exclude={"checkpoint_seconds"})
                common["distill"] = distill | self._distill_files
            return {**common, "config": search, "latency": config.latency, "device": self._device_inputs}
        if name == "distill":
            distill = config.distill.model_dump(mode="json", exclude={"checkpoint_seconds", "method"})
            named = [(map_names({m.name: m.options}, _identity), m.factor) for m in self.methods]
            methods = [[name, options, factor] for entry, factor in named for name, options in entry.items()]
            others = [_teacher_inputs(teacher) for teacher in config.teachers]
            distill |= self._distill_files
            own = {"config": distill, "methods": methods, "teachers": others}
            return {**common, "student": self.student.fingerprint(), **own}
        common["student"] = Checkpoint.load(self.out / "distill").fingerprint()
        common["device"] = self._device_inputs
        common["opset"] = self.opset
        if name == "quantize":
            quantize = config.quantize.model_dump(mode="json")
            quantize["qad"]["method"] = map_names(quantize["qad"]["method"], _identity)
            return {**common, "config": quantize, "scheme": self.scheme}
        made = config.export.model_dump(mode="json", exclude={"opset"})
        return {**common, "config": made, "quantized": Checkpoint.load(self.out / "quantize").fingerprint()}

    @cached_property
    def _device_inputs(self) -> dict[str, Any]:
        from edgekd.profile.devices import device_identity

        return {"device": self.device.fingerprint(), "identity": device_identity(self.device)}

    def fingerprint(self, name: str) -> str:
        return fingerprint({"stage": name, "inputs": self.inputs(name)})

    # --- doing ---------------------------------------------------------------------------------------------------

    def do(self, name: str, *, force: bool) -> StageResult:
        def fill(out: Path) -> None:
            if self.training:
                processes.broadcast((name, str(out)))
            getattr(self, f"_{name}")(out)

        self.training = processes.count() > 1 and name in ("teacher", "search", "distill")
        result = self.run.run(name, self.inputs(name), fill, force=force)
        self.training = False
        return result

    def _teacher(self, out: Path) -> None:
        from edgekd.distill import train_teacher

        train_teacher(
            out,
            spec=self.teacher_spec,
            data=self.data,
            config=self.config.teacher,
            seed=self.config.seed,
            progress=self.progress,
        )

    def _search(self, out: Path) -> None:
        from edgekd.search import search

        search(
            out,
            teacher=self.teacher,
            data=self.data,
            device=self.device,
            config=self.config.search,
            latency=self.config.latency,
            seed=self.config.seed,
            progress=self.progress,
            train=partial(self._train_shortly, out / "calibration" / "replay"),
        )

    def _train_shortly(self, store: Path, out: Path, student: ModelSpec) -> float:
        """Validation top-1 of a student after `search.calibration_epochs`; a finished one is not trained again."""
        from edgekd.distill import distill

        if (out / "checkpoint.json").is_file():
            return Checkpoint.load(out).metrics["val_top1"]
        config, epochs = self.config.distill, self.config.search.calibration_epochs
        fewer = {"views": min(config.views, epochs), "warmup_epochs": min(config.warmup_epochs, epochs / 4)}
        short = config.model_copy(update={"epochs": epochs, **fewer})
        out.mkdir(parents=True, exist_ok=True)
        checkpoint = distill(
            out,
            teacher=self.teacher,
            student=student,
            data=self.data,
            config=short,
            seed=self.config.seed,
            progress=self.progress,
            others=self.others,
            store=store,
        )
        return checkpoint.metrics["val_top1"]

    def _distill(self, out: Path) -> None:
        from edgekd.distill import distill

        distill(
            out,
            teacher=self.teacher,
            student=self.student,
            data=self.data,
            config=self.config.distill,
            seed=self.config.seed,
            progress=self.progress,
            others=self.others,
        )

    def _quantize(self, out: Path) -> None:
        from edgekd.quantize import quantize

        quantize(
            out,
            student=Checkpoint.load(self.out / "distill"),
            teacher=self.teacher,
            data=self.data,
            device=self.device,
            config=self.config.quantize,
            seed=self.config.seed,
            opset=self.opset,
            progress=self.progress,
        )

    def _export(self, out: Path) -> None:
        from edgekd.export import export
        from edgekd.report.ledger import measure_ledger

        student, quantized = Checkpoint.load(self.out / "distill"), Checkpoint.load(self.out / "quantize")
        taken = self.data if self.config.export.resize is None else self._load(self.config.export.resize)
        models = export(
            out,
            teacher=self.teacher,
            student=student,
            quantized=quantized,
            data=self.data,
            taken=taken,
            device=self.device,
            config=self.config.export,
            progress=self.progress,
        )
        by_name = {model.artifact: model for model in models}
        (shipped,) = (model for model in models if model.scheme is not None)
        measure_ledger(
            out,
            teacher=by_name["teacher"],
            teacher_spec=self.teacher,
            student=student,
            ptq=self._quantized_graph("ptq", shipped),
            qad=self._quantized_graph("qad", shipped),
            fp32=by_name["onnx-fp32"],
            shipped=shipped,
            data=self.data,
            taken=taken,
            device=self.device,
            progress=self.progress,
        )

    def _quantized_graph(self, kind: str, like: OnnxModel) -> OnnxModel | None:
        """The graph of a quantization step that need not be the one that ships."""
        path = self.out / "quantize" / f"student-{kind}.onnx"
        return replace(like, path=str(path), artifact=f"student-{kind}") if path.is_file() else None

    def _profile(self, out: Path) -> None:
        from edgekd.profile import profile

        profile(out, models=self.exported, device=self.device, config=self.config.profile, progress=self.progress)

    def taken_as_they_are(self, names: Sequence[str]) -> list[StageResult]:
        """The stages before a `--from`."""
        return [self._there(name) for name in self.all_stages[: self.all_stages.index(names[0])]]

    def still_valid(self, names: Sequence[str]) -> list[StageResult]:
        """The stages behind an `--until` whose inputs are still the same."""
        results: list[StageResult] = []
        for name in self.all_stages[self.all_stages.index(names[-1]) + 1 :]:
            if not self.run.cached(name, self.fingerprint(name)):
                break
            results.append(self._there(name))
        return results

    def _there(self, name: str) -> StageResult:
        record = self.run.record(name)
        assert record is not None
        return StageResult(name, self.out / name, record["seconds"], True, record["fingerprint"])

    def record(self, results: Sequence[StageResult], started: float) -> None:
        """Write run.json; after a run that did nothing, it says so."""
        data: dict[str, Any] = {"name": Path(self.config.data).name}
        teacher: dict[str, Any] = {"name": self.config.teacher.source or self.config.teacher.name}
        file = self.run.path / "run.json"
        old: Mapping[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        if "data" in self.__dict__:
            d = self.data
            splits = {"train": len(d.train), "val": len(d.val), "test": len(d.test)}
            data |= {"classes": d.num_classes, "input_shape": list(d.input_shape), **splits, "digest": d.digest}
        else:
            data = old.get("data", data)
        if all(result.cached for result in results) and old:
            teacher = old["teacher"]
        elif self.config.teacher.source is not None or (self.out / "teacher" / "stage.json").is_file():
            teacher |= self._teacher_record()
        stages = [
            {"name": r.name, "seconds": r.seconds, "cached": r.cached, "fingerprint": r.fingerprint} for r in results
        ]
        write_json(
            file,
            {
                "config": self.config.model_dump(mode="json"),
                "seed": self.config.seed,
                "versions": {name: version(name) for name in PACKAGES},
                "host": {"system": platform.platform(), "python": platform.python_version(), **self._host()},
                "data": data,
                "teacher": teacher,
                "seconds": time.time() - started,
                "stages": stages,
            },
        )

    def _teacher_record(self) -> dict[str, Any]:
        from edgekd.models import build_model, cost

        spec = self.teacher
        found = cost(build_model(spec), spec.input_shape)
        name = spec.name if spec.weights == HUB else f"{spec.name} ({Path(str(spec.weights)).name})"
        return {"name": name, "params": found.params, "macs": found.macs}

    def _host(self) -> dict[str, str]:
        from edgekd.profile.devices import cpu_name

        return {"cpu": cpu_name()}


def _teacher_inputs(config: TeacherConfig) -> Any:
    record = config.model_dump(mode="json", exclude={"train", "name"})
    if config.source is not None and config.source.startswith("file:"):
        path = Path(config.source[5:])
        record["source"] = digest_file(path) if path.is_file() else config.source
    return record


def _identity(method: str) -> str:
    """A method's name; of a user's file its class and content."""
    file, _, name = method.rpartition(":")
    return f"{digest_file(Path(file))}:{name}" if file.endswith(".py") and Path(file).is_file() else method


def _estimate(chain: Chain) -> dict[str, float]:
    """Rough seconds a stage: images x MACs over the rate of one timed training step of ResNet-20 here.

    A training step costs three forward passes. The student is not known before the search and counts as ResNet-20.
    """
    import torch
    from torch.nn import functional as F

    from edgekd.models import build_model, cost

    config, data = chain.config, chain.data
    reference = ModelSpec("edgekd", "resnet20", data.num_classes, data.input_shape)
    model: torch.nn.Module = build_model(reference).train().to(memory_format=torch.channels_last)
    images = torch.zeros(64, *data.input_shape).to(memory_format=torch.channels_last)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        torch.autograd.backward(F.cross_entropy(model(images), torch.zeros(64, dtype=torch.long)))
        seconds.append(time.perf_counter() - begun)
    per_image = sorted(seconds)[1] / 64
    student = cost(model, data.input_shape).macs
    with contextlib.suppress(FileNotFoundError):
        student = cost(build_model(chain.student), data.input_shape).macs
    own = chain.config.teacher.source is None
    macs = cost(build_model(chain.teacher_spec if own else chain.teacher), data.input_shape).macs
    forward, n, test = per_image / 3 * macs / cost(model, data.input_shape).macs, len(data.train), len(data.test)
    train = per_image * student / cost(model, data.input_shape).macs * n
    stored = all(METHODS[m.name].replayable for m in chain.methods if m.name in METHODS) and not config.distill.mixup
    passes = config.distill.views if stored and config.distill.targets == "replay" else config.distill.epochs
    passes *= 1 + len(config.teachers)
    runs_networks = not config.search.student and not SCORERS[config.search.scorer].cost.startswith("none")
    search = config.search.evaluations * config.search.inits if runs_networks else 0
    return {
        "teacher": _full_epochs(config.teacher.train) * n * forward * 3,
        "search": 10 + search * config.search.batch_size * per_image,
        "distill": passes * n * forward
        + _full_epochs(config.distill) * train
        + config.distill.blockwise.epochs * (train + 3 * n * forward),
        "quantize": 20 + config.quantize.qad.epochs * (2 * train + n * forward),
        "export": 20 + test * (forward + 4 * train / n / 3),
        "profile": 5 + sum(config.profile.batches) * (config.profile.runs + config.profile.warmup) * 2 * forward,
    }


def _full_epochs(config: TrainConfig) -> float:
    """Epochs at full size that cost as much: an image at 3/4 the size has 9/16 of the MACs."""
    return config.epochs * (1 - config.progressive * 7 / 16)
