"""scikit-learn's handwritten digits (Alpaydin and Kaynak, UCI 1998): 1,797 grey images of 8x8."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from edgekd.data.dataset import Split
from edgekd.data.readers._base import Raw, make_raw
from edgekd.data.readers._images import resize


@dataclass(frozen=True)
class DigitsReader:
    def digest(self) -> str:
        split = self._load()
        return hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest()

    def read(self, image_size: int | None) -> Raw:
        split = self._load()
        return make_raw("digits", "digits", {"train": Split(resize(split.images, image_size), split.labels)})

    def _load(self) -> Split:
        from sklearn.datasets import load_digits  # half a second: only for who asks for it

        images, labels = load_digits().images, load_digits().target
        return Split(np.round(images * (255 / 16)).astype(np.uint8)[..., None], labels.astype(np.int64))
