"""What flows between stages: frozen dataclasses, each written as a file or directory that describes itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import Any, TypeVar

from edgekd.errors import ModelError
from edgekd.intervals import median_interval, nearest_rank
from edgekd.stage import digest_file, fingerprint, write_json

T = TypeVar("T", bound="Artifact")
HUB = "hub"  # ModelSpec.weights: the ones its library downloads


@dataclass(frozen=True)
class Artifact:
    """Base of the artifacts: a JSON round trip and a fingerprint of the content."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls: type[T], record: dict[str, Any]) -> T:
        known = {f.name for f in fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in record.items() if k in known})

    def fingerprint(self) -> str:
        return fingerprint(self.to_json())


@dataclass(frozen=True)
class ModelSpec(Artifact):
    """How to build a model; a searched student's `kwargs` are its genotype.

    `source` is who builds it: `timm`, `torchvision`, `edgekd` for a reference net of `edgekd.models`, or `onnx` for a
    file that ONNX Runtime runs. `weights` is a file, HUB, or None for random ones. `input_shape` is (C, H, W), without
    the batch; `mean`, `std` normalise inputs; the model itself resizes them to `resize` pixels where that is given.
    `around` is what a distillation method ships around the network: {"class": "module:Class", "kwargs": {...}}.
    """

    source: str
    name: str
    num_classes: int
    input_shape: tuple[int, int, int]
    kwargs: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: int | None = None
    around: dict[str, Any] | None = None

    def fingerprint(self) -> str:
        """Content, never a path: a weights file counts by its bytes."""
        record = self.to_json()
        if self.weights not in (None, HUB):
            record["weights"] = digest_file(Path(str(self.weights)))
        return fingerprint(record)


@dataclass(frozen=True)
class Checkpoint(Artifact):
    """A trained model: a directory with `checkpoint.json` and `model.safetensors`."""

    path: str
    spec: ModelSpec
    metrics: dict[str, float] = field(default_factory=dict)
    scheme: str | None = None
    scheme_options: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        return Path(self.path) / "model.safetensors"

    def save(self) -> None:
        """Write `checkpoint.json`; the weights are written beside it by whoever trained them."""
        record = self.to_json()
        del record["path"]
        write_json(Path(self.path) / "checkpoint.json", record)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        file = Path(path) / "checkpoint.json"
        if not file.is_file():
            raise ModelError(f"{path} holds no checkpoint.json", "Name a directory that distill or quantize wrote.")
        record = json.loads(file.read_text())
        spec = ModelSpec.from_json(record.pop("spec"))
        return cls(path=str(path), spec=spec, **record)

    def fingerprint(self) -> str:
        record = self.to_json()
        del record["path"]
        record["spec"] = self.spec.fingerprint()
        return fingerprint({**record, "weights": digest_file(self.weights)})


@dataclass(frozen=True)
class OnnxModel(Artifact):
    """A graph that deploys, from `images` to `logits` float32 [B, K]; more outputs may follow.

    Images are float32 [B, C, H, W], normalised, or uint8 [B, H, W, C]; `input_shape` is their (C, H, W).
    """

    path: str
    artifact: str  # its name in the ledger: teacher | onnx-fp32 | onnx-int8
    precision: str  # fp32 | int8
    opset: int
    input_shape: tuple[int, int, int]
    scheme: str | None = None
    parity: dict[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> str:
        record = self.to_json()
        record["path"] = digest_file(Path(self.path))
        data = Path(f"{self.path}.data")  # tensors that one file has no room for
        if data.is_file():
            record["data"] = digest_file(data)
        return fingerprint(record)


@dataclass(frozen=True)
class Engine(Artifact):
    """What a runtime loads on one device."""

    path: str
    backend: str
    device: dict[str, str]
    versions: dict[str, str]
    build_log: str = ""


QUANTILES = 100  # steps of the distribution in a row


@dataclass(frozen=True)
class LatencyReport(Artifact):
    """One measurement: every sample in nanoseconds, and the conditions it was taken under.

    `phases_ns` has the parts of every sample where the runtime tells them apart: h2d, compute, d2h. `layers` and
    `blocks` are where the time goes (see `edgekd.profile.blocks`), `accuracy` what the same session gives on test
    images, `scenario` how MLPerf would call and count it.
    """

    artifact: str
    target: str
    backend: str
    precision: str
    batch: int
    samples_ns: tuple[int, ...]
    conditions: dict[str, Any]
    measured: bool = True
    phases_ns: dict[str, tuple[int, ...]] = field(default_factory=dict)
    layers: tuple[dict[str, Any], ...] = ()
    blocks: tuple[dict[str, Any], ...] = ()
    accuracy: dict[str, Any] | None = None
    scenario: dict[str, Any] | None = None

    def summary(self) -> dict[str, Any]:
        """The report's row: percentiles and mean in ms (nearest rank), throughput in images per second.

        No sample is left out. `p50_ci95_ms` is the median's interval by order statistics, `cov_percent` the standard
        deviation over the mean, `quantiles_ms` the distribution in steps of a percent, from the fastest to the slowest.
        `turn_p50_ms` is the median of each turn, where models took turns: models slow down together, so what compares
        two of them are the turns of the same number. `phases_p50_ms` are the medians of transfers and computation.
        """
        ordered = sorted(self.samples_ns)
        n, last = len(ordered), len(ordered) - 1
        mean_ms = fmean(ordered) / 1e6
        turn = self.conditions["turns"]["runs"] if "turns" in self.conditions else n
        turns = [self.samples_ns[start : start + turn] for start in range(0, n, turn)]
        interval = median_interval(ordered)
        percentiles = {f"p{q}_ms": nearest_rank(ordered, q / 100) / 1e6 for q in (50, 90, 95, 99)}
        return {
            "artifact": self.artifact,
            "target": self.target,
            "backend": self.backend,
            "precision": self.precision,
            "batch": self.batch,
            **percentiles,
            "p50_ci95_ms": None if interval is None else [bound / 1e6 for bound in interval],
            "mean_ms": mean_ms,
            "min_ms": ordered[0] / 1e6,
            "max_ms": ordered[last] / 1e6,
            "cov_percent": pstdev(ordered) / mean_ms / 1e4,
            "turn_p50_ms": [median(samples) / 1e6 for samples in turns],
            "quantiles_ms": [ordered[round(last * q / QUANTILES)] / 1e6 for q in range(QUANTILES + 1)],
            "phases_p50_ms": {name: median(samples) / 1e6 for name, samples in self.phases_ns.items()},
            "throughput_per_s": self.batch / (mean_ms / 1e3),
            "n": n,
            "measured": self.measured,
            "layers": list(self.layers),
            "blocks": list(self.blocks),
            "accuracy": self.accuracy,
            "scenario": self.scenario,
            "conditions": self.conditions,
        }
