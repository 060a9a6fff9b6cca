"""The command line: parse, one library call, render. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from edgekd import processes
from edgekd.cli_profile import profile
from edgekd.errors import EdgekdError, RunDirectoryError

if TYPE_CHECKING:
    from edgekd.config import RunConfig
    from edgekd.progress import Progress

_RUN: ContextVar[Path | None] = ContextVar("run directory of this command", default=None)


class _Group(TyperGroup):
    """Errors become one message and an exit code: 2 for wrong input, 3 for a failed run, 130 for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        _RUN.set(None)
        try:
            return super().invoke(ctx)
        except EdgekdError as error:
            if processes.rank():  # the first process says it
                raise typer.Exit(error.exit_code) from None
            _stop(f"error: {error.what}\n{error.fix}", error.exit_code)
        except KeyboardInterrupt:
            _stop("stopped; the same command goes on from here", 130)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if type(error).__module__.startswith(("typer.", "click.")):  # usage errors: typer prints them and exits 2
                raise
            log = _write_log()
            _stop(f"error: {type(error).__name__}: {error}\nThis is a fault in edgekd; the traceback is in {log}", 3)


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code) from None


def _write_log() -> Path:
    """The current traceback in RUN/error.log, or in a temporary file where there is no run or no room."""
    run = _RUN.get()
    text = traceback.format_exc()
    if run is not None and (run / ".edgekd").is_file():
        with suppress(OSError):
            (run / "error.log").write_text(text)
            return run / "error.log"
    with tempfile.NamedTemporaryFile("w", prefix="edgekd-error-", suffix=".log", delete=False) as file:
        file.write(text)
    return Path(file.name)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich would double the time of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Stage(str, Enum):
    teacher = "teacher"
    search = "search"
    distill = "distill"
    quantize = "quantize"
    export = "export"
    profile = "profile"


class Hardware(str, Enum):
    ampere = "ampere+"
    same = "same"


Config = Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="YAML file; `edgekd init` writes one.")]
Source = Annotated[Path | None, typer.Argument(metavar="[RUN|CONFIG]", help="A run directory, or a YAML file.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Data = Annotated[str | None, typer.Option(help="Folder, .npz, .parquet, sheet archive, or the word digits.")]
Target = Annotated[str | None, typer.Option(help="Device to deploy on: of `edgekd targets`, or FILE.yaml.")]
Teacher = Annotated[str | None, typer.Option(help="timm:NAME, torchvision:NAME or file:PATH; none: train one.")]
Latency = Annotated[str | None, typer.Option(help="Limit of the INT8 student at batch 1: 2ms, 500us, 6x.")]
Seed = Annotated[int | None, typer.Option(help="Of every random choice.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key: --set distill.epochs=10.")]
Out = Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")]
Force = Annotated[bool, typer.Option("--force", help="Do this stage again.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, nothing else there.")]


def _config(file: Path | None, assignments: list[str] | None, **flags: Any) -> RunConfig:
    from edgekd.config import load_config

    return load_config(file, assignments or (), {key.replace("__", "."): value for key, value in flags.items()})


def _default_out(file: Path | None, config: RunConfig) -> Path:
    return Path("runs") / (file.stem if file is not None else f"{Path(config.data).stem}-{Path(config.target).stem}")


@contextmanager
def _working(run: Path | None, json: bool) -> Iterator[Progress]:
    """The progress of a long call; whatever libraries print goes to standard error."""
    from edgekd.progress import NullProgress, PlainProgress, RichProgress

    _RUN.set(run)
    with redirect_stdout(sys.stderr):
        yield NullProgress() if json or processes.rank() else RichProgress() if sys.stderr.isatty() else PlainProgress()


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
    from edgekd import pipeline, render

    run_config = _config(
        config, assignments, data=data, target=target, teacher__source=teacher, latency=latency, seed=seed
    )
    out = out or _default_out(config, run_config)
    stages: dict[str, Any] = {
        "until": until and until.value,
        "start": start and start.value,
        "force": [stage.value for stage in force or ()],
    }
    if dry_run:
        render.plan(pipeline.plan(run_config, out, **stages), out, json)
        return
    with _working(out, json) as progress:
        report = pipeline.compress(run_config, out, progress=progress, **stages)
    _show(report, out, json)


def _show(report: dict[str, Any], out: Path, json: bool) -> None:
    """The report; nothing in a process that only helped."""
    from edgekd import render

    if report:
        render.report(report, out, json)


def _stage(
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
        with _working(source, json) as progress:
            report = pipeline.run_stage(name, source, force=force, progress=progress)
        _show(report, source, json)
        return
    config = _config(source, assignments, **flags)
    out = out or _default_out(source, config)
    with _working(out, json) as progress:
        report = pipeline.compress(config, out, until=name, force=[name] if force else [], progress=progress)
    _show(report, out, json)


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
        from edgekd import pipeline, render

        if source is None or not source.is_dir():
            raise RunDirectoryError("--explain needs a run directory", "Write edgekd search RUN --explain ARCH.")
        render.explanation(pipeline.explain(source, explain), json)
        return
    flags = {"data": data, "target": target, "teacher__source": teacher, "latency": latency, "seed": seed}
    _stage("search", source, assignments, out, force, json, **flags)


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
    _stage("distill", source, assignments, out, force, json, search__student=student, **flags)


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
        _stage("quantize", source, assignments, out, force, json, **flags)
        return
    from edgekd import render, standalone

    out = _required(out, "--out", "directory for the quantized checkpoint")
    config = _config(None, assignments, **flags)
    with _working(out, json) as progress:
        checkpoint = standalone.quantize_checkpoint(source, out, config, force=force, progress=progress)
    render.artifact(checkpoint, json)


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
        _stage("export", source, assignments, out, force, json, target=target, export__opset=opset)
        return
    from edgekd import render, standalone
    from edgekd.config import load_export_config

    out = _required(out, "--out", "directory for the ONNX file")
    config = load_export_config(assignments or (), opset)
    with _working(out, json):
        model = standalone.export_checkpoint(source, out, config, target=target, force=force)
    render.artifact(model, json)


def _bundle(run: Path, out: Path, key: Path | None, force: bool, json: bool) -> None:
    """The run as far as export, then its bundle."""
    from edgekd import pipeline, render_files
    from edgekd.bundle import write_bundle

    with _working(run, json) as progress:
        pipeline.run_stage("export", run, progress=progress)
        manifest = write_bundle(run, out, key=key, force=force)
    render_files.bundle(manifest, out, json)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Its directory or zip file.")],
    target: Annotated[str | None, typer.Option(help="Check for this device's GPU instead of this machine's.")] = None,
    public: Annotated[
        Path | None, typer.Option(metavar="KEY.pem", help="ed25519 key that must have signed it.")
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="onnxruntime or tensorrt; default: what is built.")] = None,
    provider: Annotated[str | None, typer.Option(help="Of ONNX Runtime, such as CUDAExecutionProvider.")] = None,
    atol: Annotated[
        float | None, typer.Option(min=0, help="Allowed error; default: the one that was measured.")
    ] = None,
    run: Annotated[bool, typer.Option(help="Run the golden images, not only compare files.")] = True,
    json: Json = False,
) -> None:
    """Is a bundle whole, for this device, and does it compute what it should? Exit code 2 or 3 if not."""
    from edgekd import render_files
    from edgekd.bundle import verify_bundle

    with _working(None, json):
        record = verify_bundle(
            bundle, target=target, public=public, runtime=runtime, provider=provider, atol=atol, run=run
        )
    render_files.verified(record, json)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="ONNX, engine, checkpoint or bundle.")],
    json: Json = False,
) -> None:
    """What a file is: shapes, precision by layer, Q/DQ, who made it."""
    from edgekd import render_files
    from edgekd.describe import describe

    render_files.description(describe(file), json)


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="An ONNX file or a checkpoint: the reference.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another with the same images and classes.")],
    data: Annotated[str | None, typer.Option(help="Validation images of these data; default: random pixels.")] = None,
    target: Annotated[str | None, typer.Option(help="Processor to measure on; default: this one.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Images to compare outputs on.")] = 256,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Images a timed call; repeat for more.")] = None,
    runs: Annotated[int, typer.Option(min=200, help="Timed calls.")] = 200,
    threads: Annotated[int, typer.Option(min=1, help="Threads, each pinned to a core.")] = 1,
    json: Json = False,
) -> None:
    """Two artifacts on the same inputs: error, cosine, top-1 agreement, latency side by side."""
    from edgekd import render_files
    from edgekd.compare import compare

    with _working(None, json) as progress:
        record = compare(
            a,
            b,
            target=target,
            data=data,
            count=count,
            batches=batch or (1,),
            runs=runs,
            threads=threads,
            progress=progress,
        )
    render_files.difference(record, json)


app.command()(profile)


@app.command()
def estimate(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file; a dynamic batch is set.")],
    target: Annotated[
        list[str] | None, typer.Option(help="NVIDIA GPU of `edgekd targets`, or FILE.yaml; repeat for more.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per call.")] = 1,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16 or int8; default: the file's.")] = None,
    json: Json = False,
) -> None:
    """Latency on a GPU that is not here: a roofline fitted to published tables, with its error. Not a measurement."""
    from edgekd import render_files
    from edgekd.profile.estimate import estimate as estimate_latency

    targets = _required(target, "--target", "device")
    found = [estimate_latency(model, name, batch=batch, precision=precision) for name in targets]
    render_files.estimates(found, json)


@app.command()
def lint(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any Q/DQ graph, whoever exported it.")],
    target: Target = None,
    build: Annotated[bool, typer.Option(help="Have NVIDIA's parser and builder try it, where installed.")] = True,
    json: Json = False,
) -> None:
    """Find what keeps a quantized graph from running in integers on the target; exit code 1 if anything does."""
    from edgekd import render, standalone

    target = _required(target, "--target", "device")
    with _working(None, json):
        record = standalone.lint_onnx(model, target, build=build)
    render.lint(record, json)
    if not record["clean"]:
        raise typer.Exit(1)


@app.command()
def build(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file.")],
    target: Target = None,
    batch: Annotated[
        str | None, typer.Option(metavar="MIN,OPT,MAX", help="Of a dynamic batch; one number for always that.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory for the engine.")] = None,
    builder: Annotated[
        str | None, typer.Option(help="tensorrt, trtexec or tensorrt-rtx; default: the first that can.")
    ] = None,
    workspace: Annotated[int | None, typer.Option(min=1, help="Scratch memory of a kernel, in MiB.")] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For later TensorRT versions too; slower.")
    ] = False,
    hardware: Annotated[
        Hardware | None, typer.Option(help="For every GPU since Ampere, or of the same SM; slower.")
    ] = None,
    dla: Annotated[int | None, typer.Option(min=0, help="A Jetson's DLA core, with the GPU for the rest.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write trtexec's command lines for the target; build nothing.")
    ] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Build a TensorRT engine with what is here, or say how to on the target."""
    from edgekd import render
    from edgekd.export import engine
    from edgekd.export.tensorrt import BuildOptions, parse_batch

    target = _required(target, "--target", "device")
    level: Any = hardware and hardware.value
    options = BuildOptions(parse_batch(batch), workspace, version_compatible, level, dla)
    if dry_run:
        render.commands(engine.engine_commands(model, target, options), json)
        return
    out = _required(out, "--out", "directory for the engine")
    with _working(out, json):
        record = engine.build_engine(model, target, out, options, builder=builder, force=force)
    render.engine(record, json)


def _required(value: Any, option: str, what: str) -> Any:
    if value is None:
        raise typer.BadParameter(f"name the {what}", param_hint=option)
    return value


@app.command()
def report(run: Run, json: Json = False) -> None:
    """Draw report.json and report.html again from what a run holds."""
    from edgekd import render
    from edgekd.report import build_report

    with _working(run, json):
        record = build_report(run)
    render.report(record, run, json)


@app.command()
def status(run: Run, json: Json = False) -> None:
    """What a run has done, and what is left."""
    from edgekd import pipeline, render

    render.rows(pipeline.status(run), json)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="YAML file to write.")] = Path("edgekd.yaml"),
    data: Data = None,
    target: Target = None,
    teacher: Teacher = None,
    latency: Latency = None,
    seed: Seed = None,
    assignments: Set = None,
) -> None:
    """Write a config with every key explained."""
    from edgekd.init import write_config

    config = _config(None, assignments, data=data, target=target, teacher__source=teacher, latency=latency, seed=seed)
    write_config(file, config)
    typer.echo(f"wrote {file}; run: edgekd compress {file}")


methods_app = typer.Typer(help="The distillation methods.", rich_markup_mode=None)
app.add_typer(methods_app, name="methods")


@methods_app.callback(invoke_without_command=True)
def methods(
    context: typer.Context,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a training step with each, relative to kd, on this machine.")
    ] = False,
    json: Json = False,
) -> None:
    """The distillation methods."""
    if context.invoked_subcommand is not None:
        return
    from edgekd import render
    from edgekd.catalog import METHODS

    if not measure:
        render.rows([row.line() for row in METHODS.values()], json, title="methods")
        return
    from edgekd.distill.listing import measure_methods

    with _working(None, json) as progress:
        rows = measure_methods(progress)
    render.rows(rows, json, title="a training step, by method")


@methods_app.command("show")
def show_method(
    name: Annotated[str, typer.Argument(help="Of the list, or FILE.py:CLASS.")], json: Json = False
) -> None:
    """One method: its formula and sources, its options with their defaults."""
    from edgekd import render
    from edgekd.distill.listing import describe_method

    render.method(describe_method(name), json)


@app.command()
def aspects(
    data: Annotated[str, typer.Argument(help="As --data elsewhere; its training images are asked about.")],
    model: Annotated[Path, typer.Argument(help="ONNX: images [B, C, H, W] to labels [B, Q] or embeddings [B, D].")],
    out: Annotated[Path, typer.Argument(help="Table to write, .parquet or .npz.")],
    texts: Annotated[
        Path | None, typer.Option(help="Of an image encoder: .npz with text embeddings yes and no [Q, D].")
    ] = None,
    softmax: Annotated[bool, typer.Option("--softmax", help="The outputs are classes, one of which is true.")] = False,
    scale: Annotated[float, typer.Option(help="Of cosines, with --texts.")] = 100.0,
    image_size: Annotated[int | None, typer.Option(help="Pixels of the images the model takes.")] = None,
    mean: Annotated[str | None, typer.Option(help="Of the normalisation, as 0.48,0.46,0.41.")] = None,
    std: Annotated[str | None, typer.Option(help="Of the normalisation.")] = None,
) -> None:
    """Ask a model about every training image; method makd learns its answers."""
    from edgekd.data.aspects import make_aspects, numbers

    with _working(None, False) as progress:
        samples, count = make_aspects(
            data,
            model,
            out,
            progress,
            texts=texts,
            softmax=softmax,
            scale=scale,
            image_size=image_size,
            mean=numbers(mean, "--mean"),
            std=numbers(std, "--std"),
        )
    typer.echo(f"wrote {out}: {count} aspects of {samples:,} images; use it with --set distill.table={out}")


@app.command()
def select(
    source: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT|MODEL.onnx", help="What says which are of use.")],
    out: Annotated[Path, typer.Option(help="List of samples to write, the chosen ones last; for distill.labels.")],
    count: Annotated[int, typer.Option(help="Images to choose.")],
    labelled: Annotated[Path | None, typer.Option(help="List of the samples that have labels; default: none.")] = None,
    strategy: Annotated[
        str, typer.Option(help="pcoreset, random, entropy, coreset or badge; the last two read embeddings.")
    ] = "pcoreset",
    data: Data = None,
    seed: Annotated[int | None, typer.Option(help="Of the run; default: the run's, or 0.")] = None,
    json: Json = False,
) -> None:
    """Which unlabelled training images to label next."""
    from edgekd import render
    from edgekd.selection import select as choose

    with _working(None, json) as progress:
        record = choose(
            source, out, count=count, strategy=strategy, labelled=labelled, data=data, seed=seed, progress=progress
        )
    render.selection(record, json)


spaces = typer.Typer(rich_markup_mode=None)
app.add_typer(spaces, name="spaces")

Space = Annotated[str, typer.Argument(metavar="NAME", help="A space; `edgekd spaces` lists them.")]


@spaces.callback(invoke_without_command=True)
def _spaces(context: typer.Context, json: Json = False) -> None:
    """The student spaces; what one holds; whether a target takes a point of it."""
    from edgekd import render
    from edgekd.catalog import SPACES

    if context.invoked_subcommand is None:
        render.rows(list(SPACES.values()), json, title="spaces")


@spaces.command()
def show(name: Space, json: Json = False) -> None:
    """A space's genes and their choices, its named points, and what each target wants of it."""
    from edgekd import render
    from edgekd.search.spaces.describe import describe

    render.space(describe(name), json)


@spaces.command()
def check(
    name: Space,
    genotype: Annotated[str, typer.Argument(help="A named point, or 'depths=3,3,3 widths=16,32,64'.")],
    target: Target = None,
    classes: Annotated[int | None, typer.Option(min=2, help="Default: those the space is known for.")] = None,
    images: Annotated[tuple[int, int, int] | None, typer.Option(help="Channels, height and width.")] = None,
    json: Json = False,
) -> None:
    """Parameters, MACs and depth of a point; exit code 2 and the reason where the target excludes it."""
    from edgekd import render
    from edgekd.search.spaces.describe import check

    render.point(check(name, genotype, target, classes, images), json)


@app.command()
def scorers(json: Json = False) -> None:
    """The training-free scorers that rank a space."""
    from edgekd import render
    from edgekd.catalog import SCORERS

    render.rows(list(SCORERS.values()), json, title="scorers")


targets = typer.Typer(rich_markup_mode=None)
app.add_typer(targets, name="targets")


@targets.callback(invoke_without_command=True)
def _targets(context: typer.Context, json: Json = False) -> None:
    """The devices; one in full; what a search knows of one before it starts."""
    from edgekd import render
    from edgekd.profile.devices import list_devices

    if context.invoked_subcommand is None:
        render.targets(list_devices(), json)


@targets.command("show")
def show_target(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the list, or FILE.yaml.")], json: Json = False
) -> None:
    """Every figure of a device with its unit and source; its power modes and JetPack releases."""
    from edgekd import render
    from edgekd.profile.devices import load_device

    render.target(load_device(name), json)


@targets.command()
def calibrate(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A device: of the list, or FILE.yaml.")],
    space: Annotated[
        str, typer.Option(help="Students to measure; `edgekd spaces` lists their spaces.")
    ] = "cifar-resnet",
    measurements: Annotated[int, typer.Option(min=50, help="Whole INT8 graphs to measure.")] = 300,
    classes: Annotated[int | None, typer.Option(min=2, help="Default: those the space is known for.")] = None,
    images: Annotated[tuple[int, int, int] | None, typer.Option(help="Channels, height and width.")] = None,
    seed: Annotated[int, typer.Option(help="Of the points that are drawn.")] = 0,
    json: Json = False,
) -> None:
    """Fit a latency predictor to a space's students, measured on the target; a search there then measures less."""
    from edgekd import render
    from edgekd.search import latency_calibration

    with _working(None, json) as progress:
        record = latency_calibration.calibrate(
            target, space, measurements=measurements, classes=classes, images=images, seed=seed, progress=progress
        )
    render.calibration(record, json)


@app.command()
def doctor(json: Json = False) -> None:
    """What this machine has and lacks; exit code 3 when something is missing."""
    from edgekd import render
    from edgekd.doctor import diagnose

    checks = diagnose()
    render.checks(checks, json)
    raise typer.Exit(0 if all(check.ok for check in checks) else 3)


def _version(wanted: bool) -> None:
    if wanted:
        from edgekd import __version__

        typer.echo(f"edgekd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """A trained teacher and a target device in; a small student, deployed and measured there, out."""


def main() -> None:
    app()
