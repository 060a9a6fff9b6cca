"""Logits of an exported graph, by the runtime that ships it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import OnnxModel
from edgekd.catalog import BACKENDS, find
from edgekd.profile.devices import Device, usable_cores


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

    Runs in this process on all its cores; raises BackendError when the runtime refuses the graph or the images, or
    would run elsewhere than on `device`. `backend` names another runtime than the device's own.
    """
    if not isinstance(model, OnnxModel):
        shape = (images.shape[3], images.shape[1], images.shape[2])
        model = OnnxModel(str(model), Path(model).stem, "unknown", 0, shape)
    runtime: Any = find(BACKENDS, "device.backend", backend or device.backend).load()()
    scale, shift = multiply_add(mean, std)
    rows = []
    with runtime.open(runtime.build(model, device, batch), threads=len(usable_cores())) as session:
        (name,) = session.inputs
        for start in range(0, len(images), batch):
            part = images[start : start + batch].astype(np.float32) * scale + shift
            (logits,) = session.infer({name: np.ascontiguousarray(part.transpose(0, 3, 1, 2))}).values()
            rows.append(logits)
    return np.concatenate(rows).astype(np.float32, copy=False)


def multiply_add(mean: Sequence[float], std: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(scale, shift) float32 [C], so that (x / 255 - mean) / std = x * scale + shift."""
    scale = (1 / (255 * np.asarray(std, np.float64))).astype(np.float32)
    shift = (-np.asarray(mean, np.float64) / np.asarray(std, np.float64)).astype(np.float32)
    return scale, shift
