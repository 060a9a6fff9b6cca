"""Images that tell which they are: their class is in channel 0, their number in channel 1."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared" / "data"


def make_images(labels: np.ndarray, size: int = 8, channels: int = 3) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), size, size, channels), dtype=np.uint8)
    images[..., 0] = labels[:, None, None] * 10
    if channels == 3:
        images[..., 1] = np.arange(len(labels))[:, None, None] % 256
    return images


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, labels: np.ndarray, *, struct: bool = True, names: list[str] | None = None) -> np.ndarray:
    images = make_images(labels)
    cells = [png(image) for image in images]
    column = pa.array([{"bytes": cell, "path": None} for cell in cells] if struct else cells)
    table = pa.table({"image": column, "label": pa.array(labels)})
    if names:
        record = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(record)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return images


def write_sheets(path: Path, counts: dict[str, int], classes: list[str]) -> dict[str, np.ndarray]:
    made = {}
    with zipfile.ZipFile(path, "w") as archive:
        for split, count in counts.items():
            labels = np.arange(count) % len(classes)
            made[split] = make_images(labels, size=4)
            full = np.zeros((-(-count // 100) * 100, 4, 4, 3), np.uint8)
            full[:count] = made[split]
            for i, tiles in enumerate(full.reshape(-1, 10, 10, 4, 4, 3)):
                buffer = io.BytesIO()
                sheet = np.ascontiguousarray(tiles.swapaxes(1, 2)).reshape(40, 40, 3)
                Image.fromarray(sheet).save(buffer, "WEBP", lossless=True)
                archive.writestr(f"{split}/{i:04}.webp", buffer.getvalue())
            buffer = io.BytesIO()
            np.save(buffer, labels)
            archive.writestr(f"{split}_labels.npy", buffer.getvalue())
        archive.writestr("meta.json", json.dumps({"classes": classes}))
    return made
