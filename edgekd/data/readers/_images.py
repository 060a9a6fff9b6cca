"""Decoding and resizing with Pillow, in threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from edgekd.data.dataset import Images
from edgekd.data.readers._base import allocate, parallel
from edgekd.errors import DataError

Image.init()  # loading Pillow's plugins lazily from several threads at once is a race

GREY = frozenset({"1", "L", "LA", "La"})
DEEP = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})  # grey of 16 bits, in PNG and TIFF
BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # what Pillow raises on bad files


@dataclass(frozen=True)
class Encoded:
    """An image file: `name` is what an error calls it."""

    name: str
    source: Path | bytes

    def open(self) -> Image.Image:
        return Image.open(self.source if isinstance(self.source, Path) else BytesIO(self.source))


def decode(where: object, splits: Mapping[str, Sequence[Encoded]], image_size: int | None) -> dict[str, Images]:
    """Every split as uint8 [N, H, W, C]: C is 1 if all images are grey, else 3.

    The size is `image_size` squared or the most common one of train; other images are scaled to cover it and cropped at
    the centre. Raises DataError, naming the first file that cannot be read.
    """
    every = [image for images in splits.values() for image in images]
    headers = parallel(lambda i: _header(every[i]), len(every))
    grey = all(mode in GREY or mode in DEEP for _, mode in headers)
    common = Counter(size for size, _ in headers[: len(splits["train"])]).most_common(1)[0][0]
    size = (image_size, image_size) if image_size else common
    decoded = {}
    for name, images in splits.items():
        out = allocate(where, len(images), size[1], size[0], 1 if grey else 3)

        def fill(i: int, images: Sequence[Encoded] = images, out: Images = out) -> None:
            out[i] = _pixels(images[i], size, grey)

        parallel(fill, len(images))
        decoded[name] = out
    return decoded


def resize(images: Images, image_size: int | None) -> Images:
    """uint8 [N, H, W, C] to `image_size` squared, covering it and cropped at the centre; None changes nothing."""
    if image_size is None or images.shape[1:3] == (image_size, image_size):
        return images
    count, _, _, channels = images.shape
    out = allocate("it", count, image_size, image_size, channels)

    def fill(i: int) -> None:
        image = Image.fromarray(images[i, :, :, 0] if channels == 1 else images[i])
        out[i] = _array(_fit(image, (image_size, image_size)))

    parallel(fill, count)
    return out


def _header(image: Encoded) -> tuple[tuple[int, int], str]:
    try:
        with image.open() as opened:
            return opened.size, opened.mode
    except BROKEN as error:
        raise _corrupt(image, error) from error


def _pixels(image: Encoded, size: tuple[int, int], grey: bool) -> Images:
    try:
        with image.open() as opened:
            opened.draft(None, size)  # a large JPEG is decoded at a half, a quarter or an eighth, never below `size`
            return _array(_fit(_convert(image, opened, grey), size))
    except BROKEN as error:
        raise _corrupt(image, error) from error


def _convert(image: Encoded, opened: Image.Image, grey: bool) -> Image.Image:
    if opened.mode in DEEP:  # Pillow would clip to 255
        opened = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
    elif opened.mode in ("I", "F"):
        raise DataError(f"data: {image.name} has 32 bits a pixel", "Save it with 8 or 16 bits a channel.")
    elif "transparency" in opened.info:
        opened = opened.convert("RGBA")
    return opened.convert("L" if grey else "RGB")


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def _array(image: Image.Image) -> Images:
    array = np.asarray(image, np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def _corrupt(image: Encoded, error: BaseException) -> DataError:
    return DataError(f"data: {image.name} is not an image that can be read ({error})", "Replace or remove it.")
