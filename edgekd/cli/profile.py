"""Latency: measured by `edgekd profile`, estimated by `edgekd estimate`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli._app import app, working
from edgekd.cli._options import Json, required
from edgekd.cli.stages import stage

RUN, YAML = "run.json", (".yaml", ".yml")


class Scenario(str, Enum):
    single_stream = "single-stream"
    offline = "offline"


@app.command()
def profile(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL|RUN|CONFIG]", help="ONNX, engine, bundle, run directory, checkpoint, or YAML."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Device, FILE.yaml, or [NAME@]ssh://user@host; repeat for more. A run has its own."),
    ] = None,
    batch: Annotated[list[str] | None, typer.Option(metavar="N,N,...", help="Images a call; default 1.")] = None,
    runs: Annotated[int | None, typer.Option(min=200, help="Timed calls, at least; default 200.")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Spent on them, at least; default 1, in a scenario MLPerf's 600.")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=1, help="Calls before, at least; default 50, then until stable.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads, each pinned to a core; default 1.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="Runtime instead of the target's own, such as torch-cuda.")
    ] = None,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", help="Record the calls on a GPU, and replay them.")
    ] = False,
    scenario: Annotated[
        Scenario | None, typer.Option(help="Ask and count by MLPerf's definition; not an MLPerf result.")
    ] = None,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="Also the time of every layer and block.")] = False,
    set_power_mode: Annotated[
        str | None, typer.Option(metavar="MODE", help="Of nvpmodel on a Jetson over SSH, by its sudo; put back after.")
    ] = None,
    lock_clocks: Annotated[
        bool, typer.Option("--lock-clocks", help="jetson_clocks there, by its sudo; put back after.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Also top-1 on these data's test images, same session.")] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="BASE.json", help="What --json wrote before, or a report.json.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory for latency.json, every sample and a page.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Do a run's stage again.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on standard output, nothing else there.")] = False,
) -> None:
    """Measure latency on the target, in a process of its own.

    Without options a run directory does its own stage again.
    """
    options: dict[str, Any] = {"batches": _numbers(batch), "runs": runs, "seconds": seconds, "warmup": warmup}
    options |= {"threads": threads, "per_layer": per_layer or None}
    alone = [target, *options.values(), backend, cuda_graph or None, scenario, data, compare, out]
    alone += [set_power_mode, lock_clocks or None]
    if source is None or source.suffix in YAML or ((source / RUN).is_file() and all(item is None for item in alone)):
        given: dict[str, Any] = {"--backend": backend, "--scenario": scenario, "--data": data, "--compare": compare}
        given |= {"--set-power-mode": set_power_mode, "--lock-clocks": lock_clocks or None}
        given |= {"--cuda-graph": cuda_graph or None, "--target (twice)": (target or [])[1:] or None}
        wrong = [option for option, value in given.items() if value is not None]
        if wrong:
            raise typer.BadParameter("is for a model, not for the stage of a config", param_hint=wrong[0])
        flags = {f"profile__{key}": value for key, value in options.items()}
        stage("profile", source, None, out, force, json, target=target[0] if target else None, **flags)
        return
    from edgekd import profiling
    from edgekd.config import ProfileConfig
    from edgekd.render import profile

    if target is None and (source / RUN).is_file():
        from edgekd.pipeline import run_config

        target = [run_config(source).target]
    if not target:
        raise typer.BadParameter("name the device", param_hint="--target")
    known = {"batches": (1,), **({"seconds": 600.0} if scenario is not None else {})}
    config = ProfileConfig(**{**known, **{key: value for key, value in options.items() if value is not None}})
    with working(None, json) as progress:
        rows = profiling.profile_artifact(
            source,
            target,
            config,
            backend=backend,
            cuda_graph=cuda_graph,
            scenario=scenario and scenario.value,
            set_power_mode=set_power_mode,
            lock_clocks=lock_clocks,
            data=data,
            base=compare,
            out=out,
            progress=progress,
        )
    profile.latency(rows, out, json)


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
    from edgekd.profile.estimate import estimate as estimate_latency
    from edgekd.render import profile

    targets = required(target, "--target", "device")
    found = [estimate_latency(model, name, batch=batch, precision=precision) for name in targets]
    profile.estimates(found, json)


def _numbers(texts: list[str] | None) -> tuple[int, ...] | None:
    """(1, 8, 32) of "1,8" and "32"."""
    if texts is None:
        return None
    words = [word.strip() for text in texts for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise typer.BadParameter(f"{','.join(texts)} is not a list of numbers such as 1,8,32", param_hint="--batch")
    return tuple(dict.fromkeys(map(int, words)))
