"""What there is to choose from: methods, spaces, scorers, targets; and what this machine has."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekd.cli._app import app, working
from edgekd.cli._options import Json, Target

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

    with working(None, json) as progress:
        rows = measure_methods(progress)
    render.rows(rows, json, title="a training step, by method")


@methods_app.command("show")
def show_method(
    name: Annotated[str, typer.Argument(help="Of the list, or FILE.py:CLASS.")], json: Json = False
) -> None:
    """One method: its formula and sources, its options with their defaults."""
    from edgekd.distill.listing import describe_method
    from edgekd.render import lists

    lists.method(describe_method(name), json)


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
    from edgekd.render import lists
    from edgekd.search.spaces.describe import describe

    lists.space(describe(name), json)


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
    from edgekd.render import lists
    from edgekd.search.spaces.describe import check

    lists.point(check(name, genotype, target, classes, images), json)


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
    from edgekd.profile.devices import list_devices
    from edgekd.render import lists

    if context.invoked_subcommand is None:
        lists.targets(list_devices(), json)


@targets.command("show")
def show_target(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the list, or FILE.yaml.")], json: Json = False
) -> None:
    """Every figure of a device with its unit and source; its power modes and JetPack releases."""
    from edgekd.profile.devices import load_device
    from edgekd.render import lists

    lists.target(load_device(name), json)


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
    from edgekd.render import lists
    from edgekd.search import latency_calibration

    with working(None, json) as progress:
        record = latency_calibration.calibrate(
            target, space, measurements=measurements, classes=classes, images=images, seed=seed, progress=progress
        )
    lists.calibration(record, json)


@app.command()
def doctor(json: Json = False) -> None:
    """What this machine has and lacks; exit code 3 when something is missing."""
    from edgekd.doctor import diagnose
    from edgekd.render import lists

    checks = diagnose()
    lists.checks(checks, json)
    raise typer.Exit(0 if all(check.ok for check in checks) else 3)
