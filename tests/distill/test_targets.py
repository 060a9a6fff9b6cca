"""What replay stores: values by hand, bytes by count, and a table that several processes fill."""

from __future__ import annotations

import fcntl
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd import processes
from edgekd.artifacts import ModelSpec
from edgekd.config import DistillConfig
from edgekd.data import Dataset, Split
from edgekd.data.augment import Augment
from edgekd.distill.methods._base import Batch, Outputs
from edgekd.distill.targets import CHUNK, Layout, LiveTargets, replay, tables_name
from edgekd.errors import DiskFullError
from edgekd.progress import NullProgress

CPU = torch.device("cpu")


@pytest.fixture
def data() -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (600, 4, 4, 1), np.uint8)
    split = Split(images, np.arange(600) % 5)
    return Dataset("made up", tuple("abcde"), split, split, split, (0.5,), (0.25,), False, "-")


class Teacher(LiveTargets):
    """Five logits and three embeddings of the pixels; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        super().__init__(self.run, (0.5,), (0.25,))

    def run(self, images: Tensor) -> Outputs:
        self.calls += 1
        return Outputs(images.flatten(1)[:, :5], None, images.flatten(1)[:, 5:8])


def test_the_largest_logits_and_the_mass_of_the_rest() -> None:
    layout = Layout(classes=4, top=2)
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.05, 0.9, 0.03, 0.02]]).log() + 7  # a shift changes nothing
    again = layout.unpack(layout.pack(Outputs(logits)), CPU).logits.softmax(1)
    expected = torch.tensor([[0.4, 0.3, 0.15, 0.15], [0.05, 0.9, 0.025, 0.025]])
    assert torch.allclose(again, expected, atol=1e-3)
    assert layout.row_bytes == 2 * 2 + 2 * 4 + 2


def test_a_confident_teacher_survives_fp16() -> None:
    layout = Layout(classes=2000, top=3)
    logits = torch.zeros(1, 2000)
    logits[0, 7] = 60.0
    again = layout.unpack(layout.pack(Outputs(logits)), CPU).logits
    assert again.isfinite().all() and again.softmax(1)[0, 7] > 0.999


@pytest.mark.parametrize("layout", [Layout(5), Layout(5, embedding=3), Layout(5, top=4, embedding=3)])
def test_stored_rows_are_the_teachers(layout: Layout, data: Dataset, tmp_path: Path) -> None:
    augment, teacher = Augment(0, 1, False), Teacher()
    stored = replay(tmp_path / "r", teacher, layout, data, augment, 2, CPU, NullProgress())
    samples, view = np.array([3, 599, 250, 3]), np.array([0, 1, 1, 1])
    batch = Batch(augment(data.train.images[samples], samples, view), torch.zeros(4, dtype=torch.long), samples, view)
    own, live = stored(batch), teacher(batch)
    if layout.top is None:
        assert torch.allclose(own.logits, live.logits, atol=2e-3)
    else:  # one class is left, so its share is exact too
        assert torch.allclose(own.logits.softmax(1), live.logits.softmax(1), atol=2e-3)
    if layout.embedding:
        assert own.embeddings is not None and live.embeddings is not None
        assert torch.allclose(own.embeddings, live.embeddings, atol=2e-3)
    else:
        assert own.embeddings is None
    sizes = {name: (tmp_path / "r" / name).stat().st_size for name in layout.columns}
    assert sum(sizes.values()) == 2 * 600 * layout.row_bytes


def test_processes_share_the_work(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each does every third chunk; who comes after them, and alone, has none left to do."""
    monkeypatch.setattr(processes, "count", lambda: 3)
    monkeypatch.setattr(processes, "wait", lambda: None)
    arguments = (Layout(5), data, Augment(0, 1, False), 4, CPU, NullProgress())
    calls = []
    for rank in range(3):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        teacher = Teacher()
        replay(tmp_path / "r", teacher, *arguments)
        calls.append(teacher.calls)
    monkeypatch.undo()
    assert calls == [4, 4, 4] and sum(calls) == 4 * -(-600 // CHUNK)
    alone, together = Teacher(), Teacher()
    expected = replay(tmp_path / "alone", alone, *arguments).tables["logits"]
    again = replay(tmp_path / "r", together, *arguments).tables["logits"]
    assert together.calls == 0 and np.array_equal(again, expected)


def test_the_size_and_time_are_said_before(data: Dataset, tmp_path: Path) -> None:
    said: list[str] = []

    class Listening(NullProgress):
        def note(self, text: str) -> None:
            said.append(text)

    replay(tmp_path / "r", Teacher(), Layout(5), data, Augment(0, 1, False), 2, CPU, Listening())
    assert len(said) == 1 and said[0].startswith("teacher targets: 2 x 600 images, 12,000 bytes, about ")


def test_tables_are_named_by_what_they_depend_on(data: Dataset, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"one")
    spec, config = ModelSpec("edgekd", "resnet8", 5, (1, 4, 4), weights=str(weights)), DistillConfig()
    augment, layout = Augment(0, 1, False), Layout(5)
    name = tables_name([spec], layout, data, augment, config)
    moved = weights.rename(tmp_path / "elsewhere")
    assert tables_name([replace(spec, weights=str(moved))], layout, data, augment, config) == name
    images = data.train.images.copy()
    images[7, 0, 0] ^= 1
    spec = replace(spec, weights=str(moved))
    others = [
        tables_name([spec, spec], layout, data, augment, config),
        tables_name([spec], Layout(5, embedding=3), data, augment, config),
        tables_name([spec], layout, replace(data, train=Split(images, data.train.labels)), augment, config),
        tables_name([spec], layout, data, Augment(1, 1, False), config),
        tables_name([spec], layout, data, augment, config.model_copy(update={"views": 5})),
    ]
    moved.write_bytes(b"two")
    others.append(tables_name([spec], layout, data, augment, config))
    assert len({name, *others}) == 1 + len(others)


def test_one_run_at_a_time_fills_a_store(data: Dataset, tmp_path: Path) -> None:
    with (tmp_path / "r.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        teacher = Teacher()
        arguments = (tmp_path / "r", teacher, Layout(5), data, Augment(0, 1, False), 1, CPU, NullProgress())
        waiting = threading.Thread(target=replay, args=arguments)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive() and not teacher.calls
    waiting.join(10)
    assert teacher.calls == -(-600 // CHUNK)


def test_too_little_disk_is_an_error_before_anything(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    teacher = Teacher()
    with pytest.raises(DiskFullError, match="take 12,006 bytes, and the disk of .* has 1,000 left\n.*distill.views"):
        replay(tmp_path / "r", teacher, Layout(5), data, Augment(0, 1, False), 2, CPU, NullProgress())
    assert teacher.calls == 0 and not list((tmp_path / "r").iterdir())
