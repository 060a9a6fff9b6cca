"""Two processes train as one does: the same losses, the same student, one set of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd import processes
from edgekd.artifacts import Checkpoint
from edgekd.config import TrainConfig, load_config
from edgekd.data import load_dataset
from edgekd.distill.parallel import check_batch, gather, synchronise_batchnorm
from edgekd.errors import ConfigError, ModelError
from edgekd.models import load_checkpoint
from edgekd.models.taps import Outputs
from edgekd.pipeline import compress
from edgekd.tasks.classification import predict_torch, top1

ROOT = Path(__file__).parent.parent
SETTINGS = {
    "data": "digits",
    "target": "x86-cpu",
    "search.student": "resnet8",
    "teacher.name": "resnet8",
    "teacher.train": {"epochs": 2, "lr": 0.01, "precision": "fp32"},
    "distill": {"epochs": 2, "lr": 0.03, "views": 2, "ema": 0.9, "precision": "fp32"},
}
METHODS = {
    "replay": {"taid": {"alpha": 0.05}},  # what all processes have seen sets the target
    "live": [{"mixkd": {"mixed": 0.5}}, "making_methods:Regress"],  # shares, adapters, a buffer, random draws
}
SCRIPT = """
import sys
from pathlib import Path
from test_processes import train
train(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def train(out: Path, weights: Path) -> None:
    """A teacher, and students of the teacher with these weights."""
    compress(load_config(flags=SETTINGS), out / "teacher", until="teacher")
    teacher = {"teacher.source": f"file:{weights}", "teacher.arch": "resnet8"}
    for name, method in METHODS.items():
        compress(load_config(flags={**SETTINGS, **teacher, "distill.method": method}), out / name, until="distill")


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """What one and two processes leave."""
    folder = tmp_path_factory.mktemp("processes")
    outs = {count: folder / str(count) for count in (1, 2)}
    for out in outs.values():
        out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tests" / "distill"))
        weights = outs[1] / "teacher" / "teacher" / "model.safetensors"
        train(outs[1], weights)
    (folder / "script.py").write_text(SCRIPT)
    paths = [ROOT, ROOT / "tests", ROOT / "tests" / "distill"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(folder / "script.py"), str(outs[2]), str(weights)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return outs


@pytest.mark.parametrize("name", ["teacher", *METHODS])
def test_two_processes_are_one_up_to_rounding(name: str, outs: dict[int, Path]) -> None:
    data = load_dataset("digits")
    losses, accuracies = [], []
    for out in outs.values():
        stage = out / name / ("teacher" if name == "teacher" else "distill")
        losses.append([row["loss"] for row in json.loads((stage / "history.json").read_text())])
        logits = predict_torch(load_checkpoint(Checkpoint.load(stage)), data.test.images, data.mean, data.std)
        accuracies.append(top1(logits, data.test.labels))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != losses[1]  # it was summed in another order: two really took part
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.005)
    files = [{path.relative_to(out) for path in out.rglob("*")} for out in outs.values()]
    assert files[0] == files[1]


def test_batches_that_cannot_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 3)
    check_batch(TrainConfig(batch_size=66, accumulate=2), 100)
    with pytest.raises(ConfigError, match="batch_size 64 cannot be split into 1 parts for 3 processes"):
        check_batch(TrainConfig(batch_size=100), 64)
    net = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm3d(3))
    with pytest.raises(ModelError, match="BatchNorm3d cannot take its statistics"):
        synchronise_batchnorm(net)


def test_alone_nothing_is_exchanged() -> None:
    outputs = Outputs(torch.zeros(2, 3))
    assert gather(outputs) is outputs and processes.broadcast("x") == "x" and processes.rank() == 0
    net = nn.BatchNorm2d(3)
    synchronise_batchnorm(net)
    assert type(net) is nn.BatchNorm2d


def test_shared_batchnorm_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two processes that hold the same samples: statistics, outputs and gradients of the doubled batch."""
    import accelerate.utils
    from timm.layers.norm_act import BatchNormAct2d

    def mean(tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "mean"
        return tensor.clone()

    monkeypatch.setattr(accelerate.utils, "reduce", mean)
    monkeypatch.setattr(processes, "count", lambda: 2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 5, 5, generator=generator) * 3 + 1
    for own in (nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=None), BatchNormAct2d(3)):
        shared = nn.Sequential(type(own)(3, momentum=own.momentum))
        synchronise_batchnorm(shared)
        assert type(shared[0]) is not type(own)
        ours, theirs = x.clone().requires_grad_(), torch.cat([x, x]).requires_grad_()
        result, expected = shared(ours), own(theirs)
        assert torch.allclose(result, expected[:4], atol=1e-5)
        result.pow(3).sum().backward()
        expected.pow(3).sum().backward()
        assert ours.grad is not None and theirs.grad is not None
        assert torch.allclose(ours.grad, theirs.grad[:4], atol=1e-3)
        for key, value in own.state_dict().items():
            assert torch.allclose(shared[0].state_dict()[key].float(), value.float(), atol=1e-5), key
