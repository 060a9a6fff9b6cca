"""Commands on one file or a few: graphs, engines, bundles, tables."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli._app import app, working
from edgekd.cli._options import Data, Force, Json, Target, required


class Hardware(str, Enum):
    ampere = "ampere+"
    same = "same"


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
    from edgekd.bundle import verify_bundle
    from edgekd.render import files

    with working(None, json):
        record = verify_bundle(
            bundle, target=target, public=public, runtime=runtime, provider=provider, atol=atol, run=run
        )
    files.verified(record, json)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="ONNX, engine, checkpoint or bundle.")],
    json: Json = False,
) -> None:
    """What a file is: shapes, precision by layer, Q/DQ, who made it."""
    from edgekd.describe import describe
    from edgekd.render import files

    files.description(describe(file), json)


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
    from edgekd.compare import compare
    from edgekd.render import files

    with working(None, json) as progress:
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
    files.difference(record, json)


@app.command()
def lint(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any Q/DQ graph, whoever exported it.")],
    target: Target = None,
    build: Annotated[bool, typer.Option(help="Have NVIDIA's parser and builder try it, where installed.")] = True,
    json: Json = False,
) -> None:
    """Find what keeps a quantized graph from running in integers on the target; exit code 1 if anything does."""
    from edgekd import standalone
    from edgekd.render import files

    target = required(target, "--target", "device")
    with working(None, json):
        record = standalone.lint_onnx(model, target, build=build)
    files.lint(record, json)
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
    from edgekd.export import engine
    from edgekd.export.tensorrt import BuildOptions, parse_batch
    from edgekd.render import files

    target = required(target, "--target", "device")
    level: Any = hardware and hardware.value
    options = BuildOptions(parse_batch(batch), workspace, version_compatible, level, dla)
    if dry_run:
        files.commands(engine.engine_commands(model, target, options), json)
        return
    out = required(out, "--out", "directory for the engine")
    with working(out, json):
        record = engine.build_engine(model, target, out, options, builder=builder, force=force)
    files.engine(record, json)


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

    with working(None, False) as progress:
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
    from edgekd.render import files
    from edgekd.selection import select as choose

    with working(None, json) as progress:
        record = choose(
            source, out, count=count, strategy=strategy, labelled=labelled, data=data, seed=seed, progress=progress
        )
    files.selection(record, json)
