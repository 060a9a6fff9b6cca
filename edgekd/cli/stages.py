"""`edgekd compress`, and its stages one by one."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli._app import app, working
from edgekd.cli._options import (
    Config,
    Data,
    Force,
    Json,
    Latency,
    Out,
    Seed,
    Set,
    Source,
    Target,
    Teacher,
    default_out,
    load,
    required,
)
from edgekd.errors import RunDirectoryError


class Stage(str, Enum):
    teacher = "teacher"
    search = "search"
    distill = "distill"
    quantize = "quantize"
    export = "export"
    profile = "profile"


@app.command()
def compress(
    config: Config = None,
    data: Data = None,
    target: Target = None,
    teacher: Teacher = None,
    latency: Latency = None,
    seed: Seed = None,
    out: Out = None,
    assignments: Set = None,
    until: Annotated[Stage | None, typer.Option(help="Last stage to do.")] = None,
    start: Annotated[
        Stage | None, typer.Option("--from", help="First stage to do; those before must be there.")
    ] = None,
    force: Annotated[list[Stage] | None, typer.Option(help="Do this stage again, even if it is there.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; write nothing.")] = False,
    json: Json = False,
) -> None:
    """The whole chain: teacher, search, distill, quantize, export, profile, report."""
    from edgekd import pipeline
    from edgekd.render import stages

    run_config = load(
        config, assignments, data=data, target=target, teacher__source=teacher, latency=latency, seed=seed
    )
    out = out or default_out(config, run_config)
    which: dict[str, Any] = {
        "until": until and until.value,
        "start": start and start.value,
        "force": [stage.value for stage in force or ()],
    }
    if dry_run:
        stages.plan(pipeline.plan(run_config, out, **which), out, json)
        return
    with working(out, json) as progress:
        report = pipeline.compress(run_config, out, progress=progress, **which)
    show_report(report, out, json)


def show_report(report: dict[str, Any], out: Path, json: bool) -> None:
    """The report; nothing in a process that only helped."""
    from edgekd.render import stages

    if report:
        stages.report(report, out, json)


def stage(
    name: str,
    source: Path | None,
    assignments: list[str] | None,
    out: Path | None,
    force: bool,
    json: bool,
    **flags: Any,
) -> None:
    """The chain as far as stage `name`: of an existing run directory, or of a config and flags."""
    from edgekd import pipeline

    if source is not None and source.is_dir():
        if assignments or out or any(value is not None for value in flags.values()):
            raise RunDirectoryError(
                f"{source} is a run directory and has its own config", "Leave out the flags, or name a YAML file."
            )
        with working(source, json) as progress:
            report = pipeline.run_stage(name, source, force=force, progress=progress)
        show_report(report, source, json)
        return
    config = load(source, assignments, **flags)
    out = out or default_out(source, config)
    with working(out, json) as progress:
        report = pipeline.compress(config, out, until=name, force=[name] if force else [], progress=progress)
    show_report(report, out, json)


@app.command()
def search(
    source: Source = None,
    data: Data = None,
    target: Target = None,
    teacher: Teacher = None,
    latency: Latency = None,
    seed: Seed = None,
    out: Out = None,
    assignments: Set = None,
    force: Force = False,
    explain: Annotated[
        str | None, typer.Option(metavar="ARCH", help="Why RUN's search ranks this point where it does.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the student, without training it."""
    if explain is not None:
        from edgekd import pipeline
        from edgekd.render import stages

        if source is None or not source.is_dir():
            raise RunDirectoryError("--explain needs a run directory", "Write edgekd search RUN --explain ARCH.")
        stages.explanation(pipeline.explain(source, explain), json)
        return
    flags = {"data": data, "target": target, "teacher__source": teacher, "latency": latency, "seed": seed}
    stage("search", source, assignments, out, force, json, **flags)


@app.command()
def distill(
    source: Source = None,
    data: Data = None,
    target: Target = None,
    teacher: Teacher = None,
    student: Annotated[str | None, typer.Option(help="Take this student, such as resnet20; no search.")] = None,
    latency: Latency = None,
    seed: Seed = None,
    out: Out = None,
    assignments: Set = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Train the student on the teacher's outputs."""
    flags = {"data": data, "target": target, "teacher__source": teacher, "latency": latency, "seed": seed}
    stage("distill", source, assignments, out, force, json, search__student=student, **flags)


@app.command()
def quantize(
    source: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A run, or what distill wrote.")],
    data: Data = None,
    target: Target = None,
    teacher: Teacher = None,
    seed: Seed = None,
    out: Out = None,
    assignments: Set = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """INT8 as the target's runtime executes it: calibration, then quantization-aware distillation."""
    flags = {"data": data, "target": target, "teacher__source": teacher, "seed": seed}
    if not (source / "checkpoint.json").is_file():
        stage("quantize", source, assignments, out, force, json, **flags)
        return
    from edgekd import standalone
    from edgekd.render import stages

    out = required(out, "--out", "directory for the quantized checkpoint")
    config = load(None, assignments, **flags)
    with working(out, json) as progress:
        checkpoint = standalone.quantize_checkpoint(source, out, config, force=force, progress=progress)
    stages.artifact(checkpoint, json)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A run, or what distill or quantize wrote.")],
    out: Annotated[Path | None, typer.Option(help="Directory for a checkpoint's graph.")] = None,
    target: Target = None,
    opset: Annotated[
        int | None,
        typer.Option(min=13, max=23, help="ONNX operator set; default: what the target and the scheme need."),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Also pack the run for its device: a new directory, or FILE.zip.")
    ] = None,
    sign: Annotated[Path | None, typer.Option(metavar="KEY.pem", help="ed25519 key to sign the bundle with.")] = None,
    assignments: Set = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write ONNX; with --bundle a folder that verifies, builds and runs itself on the device."""
    if sign is not None and bundle is None:
        raise typer.BadParameter("only a bundle is signed: add --bundle", param_hint="--sign")
    if bundle is not None:
        if any((out, target, opset, assignments)):
            raise typer.BadParameter("packs a run as it is: leave out other options", param_hint="--bundle")
        _bundle(source, bundle, sign, force, json)
        return
    if not (source / "checkpoint.json").is_file():
        stage("export", source, assignments, out, force, json, target=target, export__opset=opset)
        return
    from edgekd import standalone
    from edgekd.config import load_export_config
    from edgekd.render import stages

    out = required(out, "--out", "directory for the ONNX file")
    config = load_export_config(assignments or (), opset)
    with working(out, json):
        model = standalone.export_checkpoint(source, out, config, target=target, force=force)
    stages.artifact(model, json)


def _bundle(run: Path, out: Path, key: Path | None, force: bool, json: bool) -> None:
    """The run as far as export, then its bundle."""
    from edgekd import pipeline
    from edgekd.bundle import write_bundle
    from edgekd.render import stages

    with working(run, json) as progress:
        pipeline.run_stage("export", run, progress=progress)
        manifest = write_bundle(run, out, key=key, force=force)
    stages.bundle(manifest, out, json)
