"""What is there of a run, and the config of the next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli._app import app, working
from edgekd.cli._options import Data, Json, Latency, Run, Seed, Set, Target, Teacher, load


@app.command()
def report(run: Run, json: Json = False) -> None:
    """Draw report.json and report.html again from what a run holds."""
    from edgekd.render import stages
    from edgekd.report import build_report

    with working(run, json):
        record = build_report(run)
    stages.report(record, run, json)


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

    config = load(None, assignments, data=data, target=target, teacher__source=teacher, latency=latency, seed=seed)
    write_config(file, config)
    typer.echo(f"wrote {file}; run: edgekd compress {file}")
