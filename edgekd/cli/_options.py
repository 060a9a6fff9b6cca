"""Options that several commands share, and the config that they add up to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgekd.config import RunConfig

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


def load(file: Path | None, assignments: list[str] | None, **flags: Any) -> RunConfig:
    from edgekd.config import load_config

    return load_config(file, assignments or (), {key.replace("__", "."): value for key, value in flags.items()})


def default_out(file: Path | None, config: RunConfig) -> Path:
    return Path("runs") / (file.stem if file is not None else f"{Path(config.data).stem}-{Path(config.target).stem}")


def required(value: Any, option: str, what: str) -> Any:
    if value is None:
        raise typer.BadParameter(f"name the {what}", param_hint=option)
    return value
