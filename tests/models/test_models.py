"""Models: counts known from the literature, weights that load or are refused with a reason."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.config import TeacherConfig
from edgekd.errors import ModelError
from edgekd.models import build_model, cost, load_checkpoint, read_state, resolve_teacher

RESNET20 = ModelSpec("edgekd", "resnet20", 10, (3, 32, 32))


class FakeData:
    num_classes, input_shape, mean, std = 10, (3, 32, 32), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)


def teacher_file(path: Path, spec: ModelSpec = RESNET20, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_file(build_model(spec).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "shortcut", "params", "macs"),
    [
        ("resnet20", "A", 269_722, 40_551_040),  # He et al. 2016, table 6: 0.27 M
        ("resnet20", "B", 272_474, 40_813_184),
        ("resnet56", "A", 853_018, 125_485_696),  # 0.85 M
        ("resnet110", "A", 1_727_962, None),  # 1.7 M
    ],
)
def test_reference_nets_have_the_published_size(name: str, shortcut: str, params: int, macs: int | None) -> None:
    found = cost(build_model(replace(RESNET20, name=name, kwargs={"shortcut": shortcut})), (3, 32, 32))
    assert found.params == params
    assert macs is None or found.macs == macs


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = replace(RESNET20, name="cifar-resnet", kwargs={"depths": (1, 2, 1), "widths": (16, 24, 40)})
    model = build_model(spec)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    Checkpoint(str(tmp_path), spec, {"val_top1": 0.5}).save()
    again = Checkpoint.load(tmp_path)
    assert again.metrics == {"val_top1": 0.5}
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(load_checkpoint(again)(image), model(image))


def test_fingerprint_is_content_not_path(tmp_path: Path) -> None:
    one = replace(RESNET20, weights=str(teacher_file(tmp_path / "a.safetensors")))
    same = replace(RESNET20, weights=str(teacher_file(tmp_path / "b.safetensors")))
    other = replace(RESNET20, weights=str(teacher_file(tmp_path / "c.safetensors", seed=1)))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_published_layout_loads(tmp_path: Path) -> None:
    """`module.` prefix, head `linear`, no num_batches_tracked, weights under state_dict."""
    torch.manual_seed(0)
    model = build_model(replace(RESNET20, kwargs={"shortcut": "A"}))
    state = {
        "module." + key.replace("fc.", "linear."): value
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "t.th")
    teacher = resolve_teacher(TeacherConfig(source=f"file:{tmp_path / 't.th'}", arch="resnet20"), FakeData())
    assert teacher.kwargs == {"shortcut": "A"} and teacher.mean == FakeData.mean
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(build_model(teacher)(image), model(image))


def test_pickle_that_needs_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.pt").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(ModelError, match="needs code.*\n.*save_file"):
        read_state(tmp_path / "t.pt")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"source": "file:{file}"}, "no teacher.arch"),
        ({"source": "file:{file}", "arch": "resnet56"}, "is not a resnet56"),
        ({"source": "file:{file}", "arch": "resnet57"}, "unknown architecture"),
        ({"source": "file:nowhere.pt", "arch": "resnet20"}, "does not exist"),
        ({"source": "timm:resnet1800"}, "timm has no model"),
        ({"source": "torchvision:resnet1800"}, "torchvision has no model"),
        ({"source": "edgekd:resnet20"}, "has no weights"),
        ({"source": "hub:resnet20"}, "not known"),
    ],
)
def test_unusable_teachers(tmp_path: Path, config: dict[str, str], message: str) -> None:
    file = teacher_file(tmp_path / "t.safetensors")
    with pytest.raises(ModelError, match=message):
        resolve_teacher(TeacherConfig(**{k: v.format(file=file) for k, v in config.items()}), FakeData())


def test_teacher_with_other_classes(tmp_path: Path) -> None:
    file = teacher_file(tmp_path / "t.safetensors", replace(RESNET20, num_classes=7))
    with pytest.raises(ModelError, match="has 7 classes, the data has 10"):
        resolve_teacher(TeacherConfig(source=f"file:{file}", arch="resnet20"), FakeData())


@pytest.mark.parametrize("arch", ["timm:resnet18", "torchvision:resnet18"])
def test_library_teacher_from_a_file(tmp_path: Path, arch: str) -> None:
    kind, _, name = arch.partition(":")
    spec = ModelSpec(kind, name, 10, (3, 32, 32))
    file = teacher_file(tmp_path / "t.safetensors", spec)
    teacher = resolve_teacher(TeacherConfig(source=f"file:{file}", arch=arch), FakeData())
    assert build_model(teacher)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
