"""`edgekd profile`: the latency of any artifact on any targets, beside its accuracy and an earlier measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgekd.artifacts import OnnxModel
from edgekd.catalog import BACKENDS, find
from edgekd.config import ProfileConfig
from edgekd.errors import ConfigError
from edgekd.progress import Progress
from edgekd.stage import write_json

if TYPE_CHECKING:
    from edgekd.profile.device import Device


def profile_artifact(
    path: Path,
    targets: Sequence[str],
    config: ProfileConfig,
    *,
    backend: str | None = None,
    cuda_graph: bool = False,
    scenario: str | None = None,
    set_power_mode: str | None = None,
    lock_clocks: bool = False,
    data: str | None = None,
    base: Path | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Rows of `LatencyReport.summary()`: every model at `path`, at every batch size of `config`, on every target.

    A target may be over SSH (see `edgekd.profile.hosts.resolve_target`), where `set_power_mode` and `lock_clocks` are
    the device's settings while it is measured. `backend` runs it instead of a target's own; `cuda_graph` replays a
    recorded graph; `scenario` asks and counts as MLPerf does (see `edgekd.profile.scenario`). With `data` the sessions
    that are timed say their top-1 on its test images. Rows have a `comparison` with those of the file `base` (see
    `edgekd.profile.comparison`), and a `roofline` on a GPU whose peaks are known (see `under_the_roof`). `out` gets
    latency.json, profile.html, and the samples as samples/TARGET-batch-N.npz.
    """
    from edgekd.profile import comparison
    from edgekd.profile.abilities import require_runnable
    from edgekd.profile.accuracy import load_labelled_images
    from edgekd.profile.hosts import label, resolve_target
    from edgekd.profile.latency import Options, measure_with
    from edgekd.profile.samples import write_samples
    from edgekd.profile.scenario import find_scenario
    from edgekd.sources import find_models

    own: Any = {} if backend is None else {"backend": find(BACKENDS, "--backend", backend).name}
    devices = [
        replace(resolve_target(target, set_power_mode=set_power_mode, lock_clocks=lock_clocks), **own)
        for target in targets
    ]
    for device in devices:
        require_runnable(device)
    bases = None if base is None else comparison.read_base(base)
    wanted = None if scenario is None else find_scenario(scenario, config.batches)
    images = None if data is None else load_labelled_images(data)
    options = Options(
        runs=config.runs,
        warmup=config.warmup,
        seconds=config.seconds,
        threads=config.threads,
        cuda_graph=cuda_graph,
        per_layer=config.per_layer,
        scenario=wanted,
    )
    rows: list[dict[str, Any]] = []
    for device in devices:
        with TemporaryDirectory(prefix="edgekd-") as scratch:
            models = find_models(path, device, Path(scratch))
            reports = measure_with(options, models, device, batches=config.batches, images=images, progress=progress)
            for model, report in zip(cycle(models), reports, strict=False):
                rows.append({**report.summary(), "roofline": _roofline(model, device, report.batch)})
        for batch in config.batches if out is not None else ():
            samples = [report for report in reports if report.batch == batch]
            write_samples(Path(str(out)) / "samples" / f"{label(device)}-batch-{batch}.npz", samples)
    if bases is not None:
        found = [comparison.counterpart(row, bases) for row in rows]
        if not any(found):
            raise ConfigError(
                f"--compare {base} has nothing of the same target and batch", "Measure the base with the same options."
            )
        for row, other in zip(rows, found, strict=True):
            row["comparison"] = None if other is None else comparison.compare(row, other)
    if out is not None:
        from edgekd.report.profile import write_page

        write_json(out / "latency.json", rows)
        write_page(out / "profile.html", path.name, rows)
    return rows


def _roofline(model: OnnxModel, device: Device, batch: int) -> dict[str, float] | None:
    from edgekd.profile.estimate.roofline import under_the_roof

    return under_the_roof(Path(model.path), device, batch) if model.path.endswith(".onnx") else None
