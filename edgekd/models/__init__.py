"""Build any model of the chain from a ModelSpec: teachers from timm, torchvision or a file, searched students."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgekd.artifacts import HUB, Checkpoint, ModelSpec
from edgekd.errors import ModelError
from edgekd.models import cifar
from edgekd.stage import write_atomic

if TYPE_CHECKING:
    from edgekd.config import TeacherConfig
    from edgekd.data import Dataset

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

SEARCHED = {  # imported when built: timm takes as long as torch
    "resnet": "edgekd.models.resnet:ResNet",
    "mobilenet": "edgekd.models.mobilenet:MobileNet",
    "nasbench201": "edgekd.models.nasbench201:NasBench201",
    "autoformer": "edgekd.models.vit:AutoFormer",
    "pit": "edgekd.models.vit:PiT",
}


@dataclass(frozen=True)
class Cost:
    params: int
    macs: int


def cost(model: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """Trainable parameters, and multiply-accumulates of one image (convolutions and matrix products)."""
    from edgekd.models.onnx import OnnxNetwork

    if isinstance(model, OnnxNetwork):  # torch cannot look inside
        return Cost(*model.cost())
    parameter = next(model.parameters())
    image = torch.zeros(1, *input_shape, dtype=parameter.dtype, device=parameter.device)
    training = model.training
    model.eval()
    # Plain matrix products inside of attention: the counter does not know the processor's fused kernel.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(training)
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)


def build_model(spec: ModelSpec) -> nn.Module:
    """The model in eval mode, with the weights `spec` names (random ones where it names none). Raises ModelError."""
    if spec.source == "edgekd":
        model: nn.Module = _build_own(spec)
    elif spec.source == "timm":
        model = _build_timm(spec)
    elif spec.source == "torchvision":
        model = _build_torchvision(spec)
    elif spec.source == "onnx":
        model = _build_onnx(spec)
    else:
        raise ModelError(f"unknown model source {spec.source!r}", "Sources: timm, torchvision, edgekd, onnx.")
    if spec.resize is not None:
        model.register_forward_pre_hook(_resizing(spec.resize))
    if spec.around is not None:
        model = _build_around(model, spec.around)
    if spec.weights not in (None, HUB) and spec.source != "onnx":
        _load_state(model, spec, read_state(Path(str(spec.weights))))
    return model.eval()


def build_random(spec: ModelSpec, seed: int) -> nn.Module:
    """The model in eval mode with random weights that depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(replace(spec, weights=None))


def _build_around(model: nn.Module, around: Mapping[str, Any]) -> nn.Module:
    module, _, name = around["class"].partition(":")
    kind = getattr(import_module(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ModelError(f"{around['class']}, which ships around the model, is no torch module", "Distil it again.")
    wrapped: nn.Module = kind(model, **around["kwargs"])
    return wrapped


def _build_onnx(spec: ModelSpec) -> nn.Module:
    from edgekd.models.onnx import OnnxNetwork

    if spec.weights is None:
        raise ModelError(f"{spec.name}.onnx has no other weights than its own", "Set search.scorer to capacity.")
    size = spec.input_shape[1:] if spec.resize is None else (spec.resize, spec.resize)
    return OnnxNetwork(Path(spec.weights), (spec.input_shape[0], *size))


def _resizing(size: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    """Bilinear to size x size, smoothed where that is smaller; a hook, so that the model keeps its modules' names."""

    def resize(_model: nn.Module, images: tuple[Tensor, ...]) -> tuple[Tensor]:
        smaller = size < max(images[0].shape[2:])
        return (F.interpolate(images[0], size=(size, size), mode="bilinear", antialias=smaller),)

    return resize


def _build_own(spec: ModelSpec) -> nn.Module:
    if spec.name in SEARCHED:
        module, _, name = SEARCHED[spec.name].partition(":")
        make: Callable[..., nn.Module] = getattr(import_module(module), name)
        return make(spec.num_classes, in_channels=spec.input_shape[0], **spec.kwargs)
    if spec.name in cifar.DEPTHS or spec.name == "cifar-resnet":
        return cifar.build(spec.name, spec.num_classes, spec.input_shape[0], **spec.kwargs)
    known = ", ".join([*cifar.DEPTHS, "cifar-resnet", *SEARCHED])
    raise ModelError(f"unknown architecture {spec.name!r}", f"Reference nets: {known}.")


def _build_timm(spec: ModelSpec) -> nn.Module:
    import timm

    if not timm.is_model(spec.name):
        near = timm.list_models(f"*{spec.name.split('.')[0][:8]}*")[:5]
        raise ModelError(f"timm has no model {spec.name!r}", f"Near: {', '.join(near) or 'see timm.list_models()'}.")
    return _build_pretrained(
        f"timm:{spec.name}",
        lambda pretrained, **kwargs: timm.create_model(spec.name, pretrained=pretrained, **kwargs),
        spec,
        {"in_chans": spec.input_shape[0]},
    )


def _build_torchvision(spec: ModelSpec) -> nn.Module:
    from torchvision import models

    if spec.name not in models.list_models():
        raise ModelError(f"torchvision has no model {spec.name!r}", "See torchvision.models.list_models().")
    return _build_pretrained(
        f"torchvision:{spec.name}",
        lambda pretrained, **kwargs: models.get_model(spec.name, weights="DEFAULT" if pretrained else None, **kwargs),
        spec,
        {},
    )


def _build_pretrained(label: str, create: Any, spec: ModelSpec, options: dict[str, Any]) -> nn.Module:
    """A library's model; from its hub with its own head, else with a head for our classes."""
    pretrained = spec.weights == HUB
    head = {} if pretrained else {"num_classes": spec.num_classes}
    try:
        model: nn.Module = create(pretrained, **options, **head, **spec.kwargs)
    except TypeError as error:
        raise ModelError(f"{label} does not take {spec.kwargs}: {error}", "Change its kwargs.") from error
    except Exception as error:
        if not pretrained:
            raise
        raise ModelError(
            f"the weights of {label} could not be fetched: {error}",
            f"Check the network, or download them and pass --teacher file:PATH with --set teacher.arch={label}.",
        ) from error
    return model


def write_state(model: nn.Module, path: Path) -> None:
    """The state dict as safetensors, in one step; `read_state` reads it."""
    from safetensors.torch import save

    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_atomic(path, save(state))


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from a torch file that needs no code to open. Raises ModelError."""
    if not path.is_file():
        kind = "is a directory" if path.is_dir() else "does not exist"
        raise ModelError(f"weights file {path} {kind}", "Name a .safetensors, .pt or .pth file.")
    state: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on foreign pickles torch warns before it refuses
                state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"weights file {path} is a pickle that needs code to open, which edgekd refuses to run",
            "Where you trust it, open it there and save its tensors: "
            "safetensors.torch.save_file(model.state_dict(), 'teacher.safetensors').",
        ) from error
    except Exception as error:
        raise ModelError(f"weights file {path} cannot be read: {error}", "Save it again as safetensors.") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"weights file {path} holds no state dict", "Save model.state_dict() with safetensors.")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _load_state(model: nn.Module, spec: ModelSpec, state: dict[str, Tensor]) -> None:
    if spec.source == "edgekd" and spec.around is None:  # else it is a checkpoint of our own
        state, _ = cifar.translate_state(state)
    want = model.state_dict()
    # Files from before torch 0.4.1 have no num_batches_tracked; it does not enter the function.
    missing = [key for key in want if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in want]
    shape = [key for key in want if key in state and state[key].shape != want[key].shape]
    if missing or extra or shape:
        key = (missing or extra or shape)[0]
        problem = "lacks" if missing else "has the unknown" if extra else "has another shape for"
        raise ModelError(
            f"weights file {spec.weights} is not a {spec.name} with {spec.num_classes} classes: it {problem} {key}",
            "Set teacher.arch to the architecture it was trained with.",
        )
    model.load_state_dict(state, strict=False)


def load_checkpoint(checkpoint: Checkpoint) -> nn.Module:
    """The float model of a checkpoint directory, in eval mode."""
    return build_model(replace(checkpoint.spec, weights=str(checkpoint.weights)))


def resolve_teacher(config: TeacherConfig, data: Dataset) -> ModelSpec:
    """The spec of the teacher a config names, checked against the data. Raises ModelError.

    Normalisation: the config's, else the one the weights were trained with, else the data's.
    """
    assert config.source is not None
    kind, _, name = config.source.partition(":")
    weights: str | None = HUB
    if kind == "file" and name.endswith(".onnx"):
        kind, weights, name = "onnx", name, Path(name).stem
    elif kind == "file":
        if config.arch is None:
            raise ModelError(
                f"teacher {config.source} has no teacher.arch",
                "Set it to a reference net such as resnet56, or to timm:NAME or torchvision:NAME.",
            )
        weights = name
        kind, _, name = config.arch.rpartition(":")
        kind = kind or "edgekd"
    elif kind == "edgekd":
        raise ModelError(
            f"teacher {config.source} has no weights", "Use file:PATH with teacher.arch, or no source to train one."
        )
    if kind not in ("timm", "torchvision", "edgekd", "onnx"):
        raise ModelError(
            f"teacher.source {config.source!r} is not known", "Use timm:NAME, torchvision:NAME or file:PATH."
        )
    spec = ModelSpec(kind, name, data.num_classes, data.input_shape, weights=weights, resize=config.image_size)
    if weights != HUB and kind != "onnx":
        state = read_state(Path(str(weights)))
        _check_classes(state, spec)
        if kind == "edgekd":
            spec = replace(spec, kwargs={"shortcut": cifar.translate_state(state)[1]})
    model = build_model(spec)
    _check_output(model, spec, config.source)
    mean, std = config.mean, config.std
    if mean is None or std is None:
        mean, std = _own_normalisation(model, kind, spec.input_shape[0]) or (data.mean, data.std)
    return replace(spec, mean=tuple(mean), std=tuple(std))


def _check_classes(state: dict[str, Tensor], spec: ModelSpec) -> None:
    """The last 2-D weight is the classifier: tell a wrong number of classes from a wrong architecture."""
    heads = [value for key, value in state.items() if key.endswith("weight") and value.ndim == 2]
    if heads and heads[-1].shape[0] != spec.num_classes:
        raise _class_error(str(spec.weights), heads[-1].shape[0], spec.num_classes)


def _check_output(model: nn.Module, spec: ModelSpec, source: str) -> None:
    with torch.no_grad():
        try:
            out = model(torch.zeros(2, *spec.input_shape))
        except (RuntimeError, AssertionError) as error:
            raise ModelError(
                f"teacher {source} cannot take images of shape {spec.input_shape}: {error}",
                "Set teacher.image_size to the size it was trained at.",
            ) from error
    if out.shape[-1] != spec.num_classes:
        raise _class_error(source, int(out.shape[-1]), spec.num_classes)


def _class_error(source: str, teacher: int, data: int) -> ModelError:
    return ModelError(
        f"teacher {source} has {teacher} classes, the data has {data}",
        "Use a teacher trained on these classes, or no teacher: one is trained on the spot.",
    )


def _own_normalisation(
    model: nn.Module, kind: str, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if kind == "timm":
        own = getattr(model, "pretrained_cfg", {})
        if own.get("mean") and len(own["mean"]) == channels:
            return tuple(own["mean"]), tuple(own["std"])
    return (IMAGENET_MEAN, IMAGENET_STD) if kind == "torchvision" and channels == 3 else None
