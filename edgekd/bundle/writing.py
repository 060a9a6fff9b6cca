"""`edgekd export --bundle`: a run as a folder, or a zip file, that explains, verifies, builds and runs itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.artifacts import Checkpoint, ModelSpec, OnnxModel
from edgekd.bundle import goldens
from edgekd.bundle.archive import write_zip
from edgekd.bundle.card import model_card, teacher_licence
from edgekd.bundle.recipe import recipe
from edgekd.bundle.signing import sign
from edgekd.bundle.triton import model_config
from edgekd.config import RunConfig
from edgekd.describe.onnx import load, signature
from edgekd.errors import DataError, RunDirectoryError
from edgekd.profile.device import Device
from edgekd.profile.devices import load_device
from edgekd.profile.inference import multiply_add
from edgekd.profile.machine import cpu_name, package_version
from edgekd.stage import digest_file, guard_disk, write_json

if TYPE_CHECKING:
    from edgekd.data import Dataset

FORMAT = 1
DEVICE = Path(__file__).parent / "device"
ALWAYS = ("manifest.py", "runner.py", "verify.py", "serve.py")
TO_BUILD = ("build.py", "build.sh")


def write_bundle(run: Path, out: Path, *, key: Path | None = None, force: bool = False) -> dict[str, Any]:
    """Write the students of the run directory `run` to `out`, a new directory or `.zip`; returns the manifest.

    The same run gives the same bytes on one machine. `key` is the PEM file of an ed25519 key that signs the manifest;
    `force` replaces what is at `out`. Raises RunDirectoryError when the run has no export or `out` is there, DataError
    when the run's data are others now.
    """
    if not (run / "export" / "stage.json").is_file():
        raise RunDirectoryError(f"{run} holds no export", f"Run edgekd export {run} first.")
    if out.exists() and not force:
        raise RunDirectoryError(f"--bundle {out} is there already", "Name another place, or use --force.")
    partial = out.with_name(f".{out.name}.partial")
    with guard_disk(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        try:
            manifest = _fill(partial, run, key)
            if out.suffix == ".zip":
                packed = partial.with_suffix(".zip.partial")
                write_zip(partial, packed)
                packed.replace(out)
            else:
                if out.is_dir():
                    shutil.rmtree(out)
                partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _fill(out: Path, run: Path, key: Path | None) -> dict[str, Any]:
    """Everything, the manifest last."""
    record = json.loads((run / "run.json").read_text())
    config = RunConfig.model_validate(record["config"])
    device, data = load_device(config.target), _data(config, record["data"]["digest"])
    exported = json.loads((run / "export" / "export.json").read_text())
    spec = Checkpoint.load(run / "distill").spec
    max_batch = max(config.profile.batches)
    runtime = "tensorrt" if device.backend == "tensorrt" else "onnxruntime"

    models = [_copy_model(out, run / "export", row) for row in exported if row["artifact"] != "teacher"]
    for model in models:
        folder = out / "models" / model["name"]
        (folder / "config.pbtxt").write_text(model_config(model, runtime, max_batch, gpu=device.kind != "cpu"))
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in data.classes))
    write_json(out / "labels.json", list(data.classes))
    write_json(out / "preprocessing.json", _preprocessing(models[0], spec, data))
    golden = _goldens(out, run, exported, models, spec, data, runtime)
    _copy_programs(out, runtime)
    if runtime == "tensorrt":
        write_json(out / "build.json", recipe(out, models, device, max_batch))
    stage = json.loads((run / "export" / "stage.json").read_text())
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "target": {"name": device.name, "title": device.title, "kind": device.kind, "runtime": runtime},
        "requires": _requires(device, runtime),
        "default": next((model["name"] for model in models if model["scheme"]), models[0]["name"]),
        "models": models,
        "provenance": {"export": stage["fingerprint"], "data": record["data"]["digest"], "seed": record["seed"]},
        "versions": record["versions"],
    }
    card = model_card(
        run=record,
        manifest=manifest,
        ledger=json.loads((run / "export" / "ledger.json").read_text()),
        latency=_latency(run, exported),
        goldens=golden,
        lint={Path(row["path"]).stem: row["lint"]["line"] for row in exported if "lint" in row},
        licence=teacher_licence(config.teacher),
    )
    (out / "MODEL_CARD.md").write_text(card)
    _seal(out, manifest, key)
    return manifest


def _data(config: RunConfig, digest: str) -> Dataset:
    from edgekd.data import load_dataset

    size = config.export.resize or config.image_size
    data = load_dataset(config.data, val_fraction=config.val_fraction, seed=config.seed, image_size=size)
    if data.digest != digest:
        raise DataError(f"data: {config.data} is not what the run was made with", "Restore it, or run it all again.")
    return data


def _copy_model(out: Path, export: Path, row: dict[str, Any]) -> dict[str, Any]:
    """The graph, and what lies outside it, in Triton's layout; returns its entry in the manifest."""
    from edgekd.report.ledger import graph_files

    source = export / row["path"]
    name = source.stem
    folder = out / "models" / name / "1"
    folder.mkdir(parents=True)
    graph, *external = graph_files(source)
    shutil.copyfile(graph, folder / "model.onnx")
    for file in external:
        shutil.copyfile(file, folder / file.name)  # the graph names it relative to itself
    proto = load(source)
    return {
        "name": name,
        "artifact": row["artifact"],
        "precision": row["precision"],
        "scheme": row["scheme"],
        "opset": row["opset"],
        "ir_version": proto.ir_version,
        "path": f"models/{name}/1/model.onnx",
        "engine": f"models/{name}/1/model.plan",
        "inputs": signature(proto, "input"),
        "outputs": signature(proto, "output"),
    }


def _preprocessing(model: dict[str, Any], spec: ModelSpec, data: Dataset) -> dict[str, Any]:
    """From a decoded picture to the graph's input; a graph that takes uint8 normalises by itself."""
    (tensor,) = model["inputs"]
    channels, height, width = data.input_shape
    whole = tensor["dtype"] == "uint8"
    return {
        "input": tensor["name"],
        "dtype": tensor["dtype"],
        "layout": "NHWC" if whole else "NCHW",
        "colour": "grey" if channels == 1 else "RGB",
        "channels": channels,
        "height": height,
        "width": width,
        "resize": "scale to cover height and width, bicubic, then crop at the centre",
        "formula": "none: the graph takes pixels" if whole else "(pixel / 255 - mean) / std, by channel",
        "mean": [] if whole else list(spec.mean),
        "std": [] if whole else list(spec.std),
    }


def _goldens(
    out: Path,
    run: Path,
    exported: list[dict[str, Any]],
    models: list[dict[str, Any]],
    spec: ModelSpec,
    data: Dataset,
    runtime: str,
) -> dict[str, Any]:
    """`goldens.npz`: pixels, scale and shift where the graph wants them, and by model and output `MODEL/OUTPUT` and
    `MODEL/OUTPUT.atol`. `goldens.json`: how they were made. Returns the latter."""
    rows = goldens.choose(data.val)
    pixels = data.val.images[rows]
    arrays: dict[str, Any] = {"pixels": pixels}
    if models[0]["inputs"][0]["dtype"] != "uint8":
        arrays["scale"], arrays["shift"] = multiply_add(spec.mean, spec.std)
    measured = {}
    by_artifact = {row["artifact"]: row for row in exported}
    for model in models:
        row = by_artifact[model["artifact"]]
        graph = OnnxModel.from_json({**row, "path": str(run / "export" / row["path"])})
        outputs, found = goldens.measure(graph, pixels, spec.mean, spec.std, optimised=runtime == "onnxruntime")
        measured[model["name"]] = found
        for name, array in outputs.items():
            arrays[f"{model['name']}/{name}"] = array
            arrays[f"{model['name']}/{name}.atol"] = np.float64(found[name]["atol"])
    np.savez(out / "goldens.npz", **arrays)
    record = {
        "images": len(rows),
        "split": "validation",
        "rows": rows.tolist(),
        "margin": goldens.MARGIN,
        "runtime": f"ONNX Runtime {package_version('onnxruntime')}, one thread",
        "cpu": cpu_name(),
        "models": measured,
    }
    write_json(out / "goldens.json", record)
    return record


def _copy_programs(out: Path, runtime: str) -> None:
    for name in (*ALWAYS, *(TO_BUILD if runtime == "tensorrt" else ())):
        shutil.copyfile(DEVICE / name, out / name)
    (out / "cpp").mkdir()
    for file in sorted((DEVICE / "cpp").iterdir()):
        shutil.copyfile(file, out / "cpp" / file.name)


def _requires(device: Device, runtime: str) -> dict[str, Any]:
    """The GPU's compute capability and the range of TensorRT, where the target has them."""
    if runtime != "tensorrt":
        return {"compute_capability": None, "tensorrt": None}
    span = device.tensorrt
    return {
        "compute_capability": None if device.compute_capability is None else f"{device.compute_capability:.1f}",
        "tensorrt": None if span is None else {"min": span.min, "max": span.max},
    }


def _latency(run: Path, exported: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The profile stage's rows; none where there is no profile of these very graphs."""
    stage, file = run / "profile" / "stage.json", run / "profile" / "latency.json"
    if not stage.is_file():
        return []
    graphs = [OnnxModel.from_json({**row, "path": str(run / "export" / row["path"])}) for row in exported]
    if json.loads(stage.read_text())["inputs"]["models"] != [graph.fingerprint() for graph in graphs]:
        return []
    rows: list[dict[str, Any]] = json.loads(file.read_text())
    return rows


def _seal(out: Path, manifest: dict[str, Any], key: Path | None) -> None:
    """MANIFEST.json over every file, its signature, and MANIFEST.sha256 over both; the same modes everywhere."""
    files = sorted(file for file in out.rglob("*") if file.is_file())
    for file in files:
        file.chmod(0o755 if file.suffix == ".sh" else 0o644)
    manifest["files"] = {
        file.relative_to(out).as_posix(): {"sha256": digest_file(file), "bytes": file.stat().st_size} for file in files
    }
    engines = [model["engine"] for model in manifest["models"] if manifest["target"]["runtime"] == "tensorrt"]
    manifest["built"] = [f"{engine}{suffix}" for engine in engines for suffix in ("", ".json", ".log")]
    write_json(out / "MANIFEST.json", manifest)
    sealed = ["MANIFEST.json"]
    if key is not None:
        (out / "MANIFEST.json.sig").write_bytes(sign((out / "MANIFEST.json").read_bytes(), key))
        sealed.append("MANIFEST.json.sig")
    (out / "MANIFEST.sha256").write_text("".join(f"{digest_file(out / name)}  {name}\n" for name in sealed))
    for name in (*sealed, "MANIFEST.sha256"):
        (out / name).chmod(0o644)
