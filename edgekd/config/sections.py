"""What can be configured: one model a section, with defaults and the text that `edgekd init` writes beside each key."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edgekd.config.methods import method_choices
from edgekd.errors import ConfigError


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainConfig(Section):
    """How a network is trained: the teacher without a checkpoint, and the student."""

    epochs: int = Field(30, ge=1, description="passes over the training split")
    batch_size: int = Field(128, ge=1, description="images per step")
    optimizer: Literal["sgd", "adamw", "muon"] = Field(
        "sgd", description="sgd has Nesterov momentum 0.9; muon learns most in few epochs (lr 0.005, weight_decay 0.05)"
    )
    lr: float = Field(0.1, gt=0, description="peak learning rate")
    weight_decay: float = Field(5e-4, ge=0, description="not applied to biases and BatchNorm")
    warmup_epochs: float = Field(1.0, ge=0, description="linear warm-up, then cosine to zero")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    progressive: float = Field(
        0.0, ge=0, lt=1, description="share of the epochs, the first, trained on images of 3/4 the size"
    )
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the weights' moving average; null for none")
    pad: int | None = Field(None, ge=0, description="pixels of the pad-crop augmentation; null for size/8")
    flip: bool | None = Field(None, description="horizontal flips; null for: no flips on digits, else yes")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the processor has bf16 arithmetic"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "off", description="torch.compile; auto: where a few timed steps are faster, so two runs may round differently"
    )
    accumulate: int = Field(
        1, ge=1, description="parts a batch is computed in where memory is short; BatchNorm and the method see a part"
    )
    mixup: float = Field(0.0, ge=0, description="a of Beta(a, a), the shares two images are mixed in; 0 for none")
    crops: int = Field(1, ge=1, description="views of an image in one batch, which then has so many images fewer")
    checkpoint_seconds: float = Field(20.0, gt=0, description="a killed run loses at most this much training")


class TeacherConfig(Section):
    source: str | None = Field(
        None, description="timm:NAME, torchvision:NAME, edgekd:NAME or file:PATH; null: train one on the spot"
    )
    arch: str | None = Field(
        None, description="architecture of a file:PATH teacher, such as resnet56; an .onnx file needs none"
    )
    name: str = Field("resnet32", description="the reference net that is trained when there is no source")
    mean: tuple[float, ...] | None = Field(None, description="input normalisation; null: the model's, else the data's")
    std: tuple[float, ...] | None = None
    image_size: int | None = Field(
        None, ge=8, description="pixels of the images it takes, which are resized for it; null: the data's"
    )
    train: TrainConfig = Field(default_factory=TrainConfig)


class SearchConfig(Section):
    student: str | None = Field(None, description="skip the search and take this point of the space, such as resnet20")
    space: str = "cifar-resnet"
    scorer: str = Field("edgekd", description="`edgekd scorers` lists them")
    evaluations: int = Field(500, ge=1, description="candidates scored")
    population: int = Field(128, ge=2)
    tournament: int = Field(8, ge=1)
    inits: int = Field(3, ge=1, description="random initialisations a score is averaged over")
    batch_size: int = Field(64, ge=2, description="training images a candidate is scored on")
    finalists: int = Field(3, ge=1, description="best candidates whose latency is measured on the whole graph")
    calibrate: int = Field(
        0, ge=0, description="candidates distilled for calibration_epochs to correct the ranking; 0 for none, else 5+"
    )
    calibration_epochs: int = Field(3, ge=1, description="epochs of each of them, with distill's other settings")
    max_params: int | None = Field(None, ge=1)
    max_macs: int | None = Field(None, ge=1)


def _method(value: Any) -> Any:
    method_choices(value)
    return value


def _labels(value: float | str | None) -> float | str | None:
    if isinstance(value, float) and value <= 0:
        raise ValueError("is above 0")
    return value


class TapsConfig(Section):
    """Modules whose outputs methods on features compare."""

    student: tuple[str, ...] | None = Field(None, description="module names; null: the ends of its stages")
    teacher: tuple[str, ...] | None = Field(None, description="the same of the teacher")


class BlockwiseConfig(Section):
    """Before distillation every block of the student is trained by itself inside the teacher: a better start."""

    epochs: int = Field(0, ge=0, description="of it, with the optimizer of distill; 0 for none")
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the KL to the teacher; the rest is the labels'")
    temperature: float = Field(1.0, gt=0)


RECIPES: dict[str, dict[str, Any]] = {
    # Beyer et al. 2022: teacher and student see one mixed image, the loss is the plain KL, labels are not used.
    "funmatch": {"method": {"kd": {"temperature": 1.0, "alpha": 1.0}}, "mixup": 1.0, "targets": "live"},
}


class DistillConfig(TrainConfig):
    recipe: Literal["funmatch"] | None = Field(
        None, description="sets what is not set here: consistent teaching with mixup, best in many epochs"
    )
    method: Annotated[Any, AfterValidator(_method)] = Field(
        "kd", description="`edgekd methods` lists them; {NAME: {option: value}}, {NAME: factor}, or a list"
    )
    targets: Literal["replay", "live"] = "replay"
    views: int = Field(4, ge=1, description="augmented views per image whose teacher outputs replay stores")
    store: str | None = Field(
        None,
        description="a directory that keeps what replay stores, for other runs; null: gone after this one",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        description="logits replay stores of a view; null: all of up to 1000 classes, else the 100 largest",
    )
    labels: Annotated[float | str | None, AfterValidator(_labels)] = Field(
        None,
        description="labels to use: a share of every class's below 1, or so many of every class, or a file that lists "
        "samples, as `edgekd select` writes it; null: all",
    )
    unlabelled: str | None = Field(None, description="more images, whose labels are not used: as `data`; see dho")
    table: str | None = Field(
        None, description=".parquet or .npz with numbers of every training image by `sample`; see makd, swing"
    )
    ensemble: Literal["mean", "confidence"] = Field(
        "mean", description="of several teachers' logits; confidence weights them by image as CA-MKD does"
    )
    weights: tuple[float, ...] | None = Field(None, description="of the teachers in the mean; null: equal")
    taps: TapsConfig = Field(default_factory=TapsConfig)
    blockwise: BlockwiseConfig = Field(default_factory=BlockwiseConfig)

    @model_validator(mode="before")
    @classmethod
    def _recipe(cls, record: Any) -> Any:
        return {**RECIPES.get(str(record.get("recipe")), {}), **record} if isinstance(record, dict) else record


def _method_or_none(value: Any) -> Any:
    return None if value is None else _method(value)


class QadConfig(Section):
    epochs: float = Field(1.0, ge=0, description="0 keeps the PTQ model")
    tolerance: float | None = Field(
        0.001, ge=0, description="validation top-1 that PTQ may lose to FP32 before it is trained on; null: none"
    )
    patience: int = Field(2, ge=1, description="epochs without a lower validation KL that end the training")
    method: Annotated[Any, AfterValidator(_method_or_none)] = Field(
        None, description="a logit method in place of the KL to the teacher; as distill.method"
    )
    learn_scales: bool = Field(True, description="LSQ; false: ranges stay as calibrated")
    lr: float = Field(1e-4, gt=0, description="relative to the size of each channel's kernel")
    batch_size: int = Field(128, ge=1)
    temperature: float = Field(4.0, gt=0)
    teacher_weight: float = Field(0.5, ge=0, le=1, description="the rest is the FP32 student's")


class QuantizeConfig(Section):
    scheme: str | None = Field(None, description="null: the target's own")
    calibration: int = Field(512, ge=1, description="training images the ranges are calibrated on")
    calibrator: Literal["minmax", "percentile", "mse", "entropy"] = Field("mse", description="how a range is read off")
    weight_bits: int | None = Field(
        None, ge=2, le=8, description="null: what the runtime takes; below 7 simulated, in INT8 storage"
    )
    budget: float | None = Field(
        None,
        ge=0,
        description="validation top-1 that may be lost to FP32: layers are kept float for it; null: all are quantized",
    )
    qad: QadConfig = Field(default_factory=QadConfig)


class ExportConfig(Section):
    opset: int | None = Field(None, ge=13, le=23, description="null: what the target takes and the scheme needs")
    batch: int | None = Field(None, ge=1, description="images a call; null: any number")
    pixels: bool = Field(False, description="take uint8 [N, H, W, C] and normalise within the graph")
    resize: int | None = Field(None, ge=1, description="with pixels: side of the images, resized within")
    softmax: bool = Field(False, description="give probabilities beside the logits")
    top_k: int | None = Field(None, ge=1, description="give the classes and scores of the likeliest beside the logits")

    @model_validator(mode="after")
    def _resized_pixels(self) -> ExportConfig:
        if self.resize is not None and not self.pixels:
            raise ValueError("resize: the graph resizes pixels, no floats: set pixels to true too")
        return self


class ProfileConfig(Section):
    runs: int = Field(200, ge=200, description="timed calls of each graph, at least")
    seconds: float = Field(1.0, ge=0, le=3600, description="spent on them, at least, on average over the graphs")
    warmup: int = Field(50, ge=1, description="calls before them, at least: it lasts until they are stable")
    batches: tuple[int, ...] = (1, 32)
    threads: int = Field(1, ge=1)
    per_layer: bool = Field(False, description="also the time of every layer and block")


def _teacher(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else {} if value is None else value


class RunConfig(Section):
    """One run. Required: `data` and `target`."""

    data: str = Field(description="a folder, .npz, .parquet, sheet archive, or the word digits")
    target: str = Field(description="a name that `edgekd targets` lists, or a YAML file of your own")
    teacher: Annotated[TeacherConfig, BeforeValidator(_teacher)] = Field(default_factory=TeacherConfig)
    teachers: tuple[Annotated[TeacherConfig, BeforeValidator(_teacher)], ...] = Field(
        (), description="more to distil from, together with the first, which search, QAD and the report go by"
    )
    latency: str | None = Field(
        None, description="limit for the INT8 student at batch 1: 2ms, 500us or 6x (the teacher's)"
    )
    seed: int = Field(0, ge=0)
    image_size: int | None = Field(None, ge=8, description="resize images to this; null: their own size")
    val_fraction: float = Field(0.05, gt=0, lt=0.5, description="split off train; chooses and never reports")
    search: SearchConfig = Field(default_factory=SearchConfig)
    distill: DistillConfig = Field(default_factory=DistillConfig)
    quantize: QuantizeConfig = Field(default_factory=QuantizeConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)
    profile: ProfileConfig = Field(default_factory=ProfileConfig)

    @model_validator(mode="after")
    def _profiled_batch(self) -> RunConfig:
        batch = self.export.batch
        if batch is not None and self.profile.batches != (batch,):
            raise ValueError(f"export.batch: the graph takes {batch} images a call: set profile.batches to [{batch}]")
        return self

    @model_validator(mode="before")
    @classmethod
    def _first_teacher(cls, record: Any) -> Any:
        """`teacher: [a, b]` is teacher a and one more."""
        several = record.get("teacher") if isinstance(record, dict) else None
        if not isinstance(several, list) or not several:
            return record
        return {**record, "teacher": several[0], "teachers": [*several[1:], *record.get("teachers", ())]}

    def model_post_init(self, _context: Any) -> None:
        if self.latency is not None:
            parse_latency(self.latency)


def parse_latency(text: str) -> tuple[Literal["ms", "x"], float]:
    """('ms', limit) of `2ms`, `0.5 ms` or `500us`; ('x', factor) of `6x`: so many times faster than the teacher."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(ms|us|x)\s*", text)
    if match is None or float(match[1]) <= 0:
        raise ConfigError(
            f"latency: {text!r} is not a latency", "Write 2ms, 500us, or 6x for six times the teacher's speed."
        )
    value = float(match[1])
    return ("x", value) if match[2] == "x" else ("ms", value / 1e3 if match[2] == "us" else value)
