"""Bad input, through the command line: one error that names the field or file and the way out, nothing half-written."""

from __future__ import annotations

import json
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.data import load_dataset
from edgekd.data.augment import Augment
from edgekd.distill.targets import Layout, LiveTargets, replay
from edgekd.errors import DiskFullError
from edgekd.models.taps import Outputs
from edgekd.progress import NullProgress
from edgekd.stage import RunDirectory

TARGET = ("--target", "x86-cpu")
DIGITS = ("--data", "digits", *TARGET)
SMALL = ("teacher.name=resnet8", "teacher.train.epochs=1", "search.student=resnet8", "distill.epochs=1")
QUICK = tuple(word for value in SMALL for word in ("--set", value))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


def compress(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["compress", *map(str, arguments)])


def refused(done: Any, out: Path, *names: object, code: int = 2) -> str:
    """One error of two lines, naming every one of `names`; `out` was not made."""
    text = str(done.stderr)
    assert done.exit_code == code, done.output
    error = text[text.index("error: ") :]
    what, fix = error.rstrip("\n").split("\n", 1)
    assert error.count("error: ") == 1 and "Traceback" not in text and fix.strip()
    for name in names:
        assert str(name) in what, error
    assert done.stdout == ""
    assert not out.exists()
    return fix


def folder(root: Path, classes: int = 3, images: int = 12) -> Path:
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in range(classes):
            (root / split / f"class{label}").mkdir(parents=True)
            for i in range(images):
                pixels = generator.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / f"class{label}" / f"{i}.png")
    return root


def weights(path: Path, name: str = "resnet8", classes: int = 10) -> Path:
    from safetensors.torch import save_file

    from edgekd.models.cifar import build

    save_file(build(name, classes, 1).state_dict(), path)
    return path


def teacher(path: Path, arch: str = "resnet8") -> tuple[str, ...]:
    return ("--teacher", f"file:{path}", "--set", f"teacher.arch={arch}")


def test_unknown_config_key(tmp_path: Path, out: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: digits\ntarget: x86-cpu\ndistill: {epoch: 3}\n")
    assert "epochs" in refused(compress(file, "--out", out), out, "distill.epoch", file)


@pytest.mark.parametrize("kind", ["config", "data", "teacher"])
def test_missing_file(kind: str, tmp_path: Path, out: Path) -> None:
    gone = tmp_path / "gone"
    arguments: tuple[object, ...] = {
        "config": (gone,),
        "data": ("--data", gone, *TARGET),
        "teacher": (*DIGITS, *teacher(gone)),
    }[kind]
    refused(compress(*arguments, "--out", out), out, gone, "does not exist")


@pytest.mark.parametrize("kind", ["config", "data", "teacher"])
def test_directory_for_a_file(kind: str, tmp_path: Path, out: Path) -> None:
    directory = tmp_path / "images.npz"
    directory.mkdir()
    arguments: tuple[object, ...] = {
        "config": (directory,),
        "data": ("--data", directory, *TARGET),
        "teacher": (*DIGITS, *teacher(directory)),
    }[kind]
    refused(compress(*arguments, "--out", out), out, directory)


def test_teacher_with_another_number_of_classes(tmp_path: Path, out: Path) -> None:
    file = weights(tmp_path / "net.safetensors", classes=7)
    fix = refused(compress(*DIGITS, *teacher(file), "--out", out), out, file, "7 classes", "10")
    assert "teacher" in fix


def test_checkpoint_of_another_architecture(tmp_path: Path, out: Path) -> None:
    file = weights(tmp_path / "net.safetensors", "resnet20")
    fix = refused(compress(*DIGITS, *teacher(file, "resnet8"), "--out", out), out, file, "resnet8")
    assert "teacher.arch" in fix


def test_pickle_that_wants_code(tmp_path: Path, out: Path) -> None:
    witness = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (witness,)

    file = tmp_path / "net.pt"
    file.write_bytes(pickle.dumps({"state_dict": Payload()}))
    fix = refused(compress(*DIGITS, *teacher(file), "--out", out), out, file, "code")
    assert "safetensors" in fix and not witness.exists()


def test_empty_class(tmp_path: Path, out: Path) -> None:
    data = folder(tmp_path / "images")
    for image in (data / "train" / "class1").iterdir():
        image.unlink()
    refused(compress("--data", data, *TARGET, "--out", out), out, data / "train" / "class1")


def test_one_class(tmp_path: Path, out: Path) -> None:
    data = folder(tmp_path / "images", classes=1)
    refused(compress("--data", data, *TARGET, "--out", out), out, data, "class0")


@pytest.mark.parametrize(("field", "near"), [("scorer", "params"), ("space", "resnet")])
def test_unknown_part_of_a_search(field: str, near: str, out: Path) -> None:
    done = compress(*DIGITS, "--set", f"search.{field}={near}s", "--out", out)
    assert near in refused(done, out, f"search.{field}", f"{near}s")


def test_corrupt_image(tmp_path: Path, out: Path) -> None:
    data = folder(tmp_path / "images")
    image = data / "train" / "class2" / "3.png"
    image.write_bytes(image.read_bytes()[:-200])
    refused(compress("--data", data, *TARGET, "--out", out), out, image)


def test_nan_in_an_npz(tmp_path: Path, out: Path) -> None:
    images = np.random.default_rng(0).random((60, 8, 8, 1), np.float32)
    images[17, 3, 4] = np.nan
    file = tmp_path / "images.npz"
    np.savez(file, x_train=images, y_train=np.arange(60) % 3)
    refused(compress("--data", file, *TARGET, "--out", out), out, file, "x_train", "17")


def test_unknown_target(out: Path) -> None:
    assert "x86-cpu" in refused(compress("--data", "digits", "--target", "x86-cpus", "--out", out), out, "x86-cpus")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_target_that_nothing_can_be_searched_for(dry: tuple[str, ...], out: Path) -> None:
    done = compress("--data", "nowhere", "--target", "jetson-orin-nano", "--out", out, *dry)
    assert "edgekd export RUN/distill" in refused(done, out, "jetson-orin-nano", "it runs 'tensorrt'")
    assert not list(out.parent.iterdir())


def test_target_of_the_user_with_a_wrong_figure(tmp_path: Path, out: Path) -> None:
    file = tmp_path / "my-board.yaml"
    record = {"title": "x", "kind": "cpu", "backend": "onnxruntime-cpu", "scheme": "ort"}
    file.write_text(json.dumps({**record, "figures": {"memory": {"value": 8, "unit": "GB"}}}))
    refused(compress("--data", "digits", "--target", file, "--out", out), out, str(file), "figures.memory.source")


def test_latency_no_student_can_meet(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    file = weights(tmp_path / "net.safetensors")
    flags = ("--latency", "0.001us", "--set", "search.evaluations=4", "--set", "search.population=2")
    refused(compress(*DIGITS, *teacher(file), *flags, "--out", out), out, "latency")


def test_output_directory_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    done = compress(*DIGITS, *QUICK, "--out", tmp_path)
    refused(done, tmp_path / "nothing", f"--out {tmp_path}", "not empty")
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    file = tmp_path / "thesis.tex"
    refused(compress(*DIGITS, *QUICK, "--out", file), tmp_path / "nothing", f"--out {file}", "is a file")
    assert file.read_text() == "years of work"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_no_disk_space(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(1 << 20))
    out = small_disk / "run"
    done = compress(*DIGITS, "--set", "teacher.name=resnet32", "--set", "teacher.train.epochs=1", "--out", out)
    assert done.exit_code == 3, done.output
    assert f"error: no space left on the disk of {out}" in done.stderr and "same command again" in done.stderr
    assert "Traceback" not in done.output and done.stdout == ""
    assert not [entry.name for entry in out.iterdir() if not entry.name.startswith(".")]


def test_no_disk_space_for_the_teachers_targets(small_disk: Path) -> None:
    """Memory-mapped, they would end the process with SIGBUS at the first page the disk lacks."""
    data = load_dataset("digits")
    live = LiveTargets(lambda images: Outputs(images.flatten(1)), data.mean, data.std)
    views = 100
    with pytest.raises(DiskFullError, match=f"take {views * len(data.train) * 2 * 64 + 600:,} bytes"):
        replay(
            small_disk / "x", live, Layout(64), data, Augment(0, 1, False), views, torch.device("cpu"), NullProgress()
        )


def test_second_run_in_the_same_directory(out: Path) -> None:
    with RunDirectory(out).locked():
        done = compress(*DIGITS, *QUICK, "--out", out)
        refused(done, out / "nothing", f"--out {out}", "in use")
        assert [entry.name for entry in out.iterdir()] == [".edgekd"]
