"""Small datasets on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from making_data import make_images
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 train and 6 test images of 8x8 pixels in each of the classes cat and dog."""
    root = tmp_path / "pets"
    for split, count in (("train", 20), ("test", 6)):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i, pixels in enumerate(make_images(np.full(count, label))):
                Image.fromarray(pixels).save(root / split / name / f"{i:03}.png")
    return root


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., Path]:
    """npz(**arrays): 40 + 12 images of two classes, arrays replaced by name or left out where None."""

    def write(**changes: np.ndarray | None) -> Path:
        y_train, y_test = np.arange(40) % 2, np.arange(12) % 2
        arrays = {"x_train": make_images(y_train), "y_train": y_train, "x_test": make_images(y_test), "y_test": y_test}
        path = tmp_path / "data.npz"
        np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})
        return path

    return write
