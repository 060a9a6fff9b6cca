"""Logits of an exported graph, by the runtime that ships it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import OnnxModel
from edgekd.catalog import BACKENDS, find
from edgekd.profile.device import Device
from edgekd.profile.machine import usable_cores


def predict(
    model: OnnxModel | Path | str,
    images: NDArray[np.uint8],
    mean: Sequence[float],
    std: Sequence[float],
    device: Device,
    batch: int = 100,
    backend: str | None = None,
) -> NDArray[np.float32]:
    """Logits float32 [N, K] for uint8 images [N, H, W, C], normalised with `mean` and `std` of images/255.

    A graph that takes uint8 normalises by itself; one of a fixed batch gets that many, the last ones filled up.
    Runs in this process on all its cores; raises BackendError when the runtime refuses the graph or the images, or
    would run elsewhere than on `device`. `backend` names another runtime than the device's own.
    """
    if not isinstance(model, OnnxModel):
        shape = (images.shape[3], images.shape[1], images.shape[2])
        model = OnnxModel(str(model), Path(model).stem, "unknown", 0, shape)
    runtime: Any = find(BACKENDS, "device.backend", backend or device.backend).load()()
    rows = []
    with runtime.open(runtime.build(model, device, batch), threads=len(usable_cores())) as session:
        ((name, (dtype, shape)),) = session.inputs.items()
        size = shape[0] or batch
        for start in range(0, len(images), size):
            part = prepare(images[start : start + size], mean, std, dtype)
            logits = next(iter(session.infer({name: filled(part, shape[0])}).values()))
            rows.append(logits[: len(part)])
    return np.concatenate(rows).astype(np.float32, copy=False)


def prepare(
    pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Pixels [N, H, W, C] as the graph takes them: float32 [N, C, H, W], or uint8 as they are."""
    if dtype == np.uint8:
        return pixels
    scale, shift = multiply_add(mean, std)
    images = (pixels.astype(np.float32) * scale + shift).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)


def filled(part: NDArray[Any], batch: int | None) -> NDArray[Any]:
    """`part` [n, ...] as [batch, ...], the last one repeated; as it is where the batch is dynamic."""
    missing = 0 if batch is None else batch - len(part)
    return np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part


def multiply_add(mean: Sequence[float], std: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(scale, shift) float32 [C], so that (x / 255 - mean) / std = x * scale + shift."""
    scale = (1 / (255 * np.asarray(std, np.float64))).astype(np.float32)
    shift = (-np.asarray(mean, np.float64) / np.asarray(std, np.float64)).astype(np.float32)
    return scale, shift
