"""Blockwise distillation: each block of the student learns its part by itself, in its place inside the teacher.

m2mKD (Lo et al. 2024, arXiv 2402.16918), in the form that needs no meta model: where the paper puts the teacher's and
the student's module into one small network that was trained for it, here the student's block i stands in the frozen
teacher itself, as in blockwise search (DNA, Li et al. 2020). Blocks lie between the tapped features, which are paired
by depth. Block i gets the teacher's feature g at the tap before it through a stitch A_i, and what it makes goes through
a stitch B_i and the rest of the teacher,

    h_i(x) = tail_i(B_i(block_i(A_i(g_(i-1)(x)))));   the first block sees the image, the last gives the logits,
    L = sum_i [ (1 - alpha) CE(h_i, y) + alpha T^2 KL(softmax(t / T) || softmax(h_i / T)) ],

batch means (the authors divide the KL by B C, which makes it C times smaller). alpha = 1/2 and T = 1 are theirs. No
gradient passes from one block to another, so all are trained in one step that shares the teacher's pass. The stitches
are dropped, and the blocks put together are where the distillation starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from edgekd import processes
from edgekd.artifacts import ModelSpec
from edgekd.catalog import MethodRow
from edgekd.config import BlockwiseConfig, DistillConfig
from edgekd.data import Dataset
from edgekd.distill.methods._base import Batch, Method, Network, Outputs, Setup, Side
from edgekd.distill.methods._features import Pair, pair_taps, seeded
from edgekd.distill.methods._segment import Segment
from edgekd.distill.methods.hard import unit
from edgekd.distill.methods.kd import kd_loss
from edgekd.distill.methods.talking import Adapter
from edgekd.distill.schedule import augmentation
from edgekd.distill.teachers import live_targets
from edgekd.distill.trainer import Trainer
from edgekd.errors import ConfigError
from edgekd.models import build_random, write_state
from edgekd.models.taps import Tapped
from edgekd.progress import Progress
from edgekd.tasks.classification import hard_loss

ROW = MethodRow(
    "blockwise",
    "edgekd.distill.blockwise:Blockwise",
    "each block of the student by itself inside the teacher",
    family="feature",
    paper="Lo et al. 2024, arXiv 2402.16918 (without meta models)",
    needs=("labels", "features", "network"),
    anchor="-",
)


def start_of(
    out: Path,
    *,
    teacher: ModelSpec,
    student: ModelSpec,
    data: Dataset,
    config: DistillConfig,
    seed: int,
    progress: Progress,
) -> Mapping[str, Tensor]:
    """The state dict of `student` after its blocks were trained inside `teacher`, which is kept in `out`. Resumes.

    `out` also receives history.json, with the validation top-1 of the blocks put together. Raises ConfigError where the
    teacher is no torch network of the data's classes, or either network cannot be cut at its taps.
    """
    done = out / "model.safetensors"
    if not done.is_file():
        if teacher.source == "onnx" or teacher.num_classes != data.num_classes:
            what = "an ONNX file" if teacher.source == "onnx" else f"a network of {teacher.num_classes} classes"
            raise ConfigError(
                f"distill.blockwise: blocks are trained inside a torch network of the data's classes, and the teacher "
                f"is {what}",
                "Set distill.blockwise.epochs to 0, or name another teacher first.",
            )
        out.mkdir(parents=True, exist_ok=True)
        model = _train(out, teacher, student, data, config, seed, progress)
        if processes.rank() == 0:
            write_state(model, done)
            (out / "state.pt").unlink()
        processes.wait()
    return load_file(done)


def _train(
    out: Path,
    teacher: ModelSpec,
    student: ModelSpec,
    data: Dataset,
    config: DistillConfig,
    seed: int,
    progress: Progress,
) -> nn.Module:
    epochs = config.blockwise.epochs
    # No mixing and no resizing: a feature map of the teacher has to be of the images that it was tapped for.
    plain = {"mixup": 0.0, "crops": 1, "progressive": 0.0, "ema": None, "compile": "off"}
    warmup = min(config.warmup_epochs, epochs / 5)
    config = config.model_copy(update={**plain, "epochs": epochs, "warmup_epochs": warmup})
    model: nn.Module = build_random(student, seed)
    shape = student.input_shape
    side = Tapped(model, shape, features=True, taps=config.taps.student, whose="student").side
    whole = Tapped(model, shape)
    whole.side, whole.run = side, lambda images: images.new_zeros(len(images), 1)  # it runs in blocks, and only there
    targets, theirs = live_targets([teacher], ROW, config, processes.device(), None)
    augment, method = augmentation(config, data, seed), Blockwise(config.blockwise)
    trainer = Trainer(out, whole, student, method, targets, data, augment, config, seed, None, theirs)
    trainer.fit(progress, "blockwise")
    return model


class Blockwise(Method):
    """Trains the student's blocks; no row of the catalogue, since it ends with a student that was never run whole."""

    def __init__(self, config: BlockwiseConfig) -> None:
        super().__init__()
        self.alpha, self.temperature = config.alpha, config.temperature
        self.blocks = nn.ModuleList()

    def prepare(self, setup: Setup) -> None:
        pairs = pair_taps(setup, "blockwise")
        assert setup.teacher is not None and setup.student_network is not None and setup.teacher_network is not None
        networks, sides = (setup.student_network, setup.teacher_network), (setup.student, setup.teacher)
        for pair in pairs:
            Segment(setup.student_network, pair.student).check("student")
            Segment(setup.teacher_network, pair.teacher).check()
        with seeded(setup.seed):
            ends = zip((None, *pairs), (*pairs, None), strict=True)
            self.blocks = nn.ModuleList(Block(before, after, networks, sides) for before, after in ends)

    def loss(self, student: Outputs, teacher: Outputs | None, batch: Batch, step: int) -> dict[str, Tensor]:
        assert teacher is not None and teacher.features is not None
        images, labelled = unit(batch.pixels, batch.labels.device), bool((batch.labels >= 0).any())
        terms = {}
        for i, block in enumerate(self.blocks):
            logits = block(images, teacher.features)
            term = self.alpha * kd_loss(logits, teacher.logits, self.temperature)
            if labelled:
                term = term + (1 - self.alpha) * hard_loss(logits, batch.labels)
            terms[f"block{i}"] = term
        return terms


class Block(nn.Module):
    """The student's block between two pairs of taps, with its stitches, inside the teacher: images -> logits [B, K].

    `before` None is the image, `after` None the logits. Of the networks nothing is a parameter of this module.
    """

    def __init__(
        self,
        before: Pair | None,
        after: Pair | None,
        networks: tuple[Network, Network],  # student and teacher
        sides: tuple[Side, Side],
    ) -> None:
        super().__init__()
        student, teacher = networks
        self.enter = self.leave = None
        self.source = None if before is None else before.teacher
        if before is not None:
            turned = replace(
                before,
                student=before.teacher,
                teacher=before.student,
                c_student=before.c_teacher,
                c_teacher=before.c_student,
            )
            self.enter = Adapter(turned, sides[0].shapes[before.student])
        own = Segment(student, before.student if before else None, after.student if after else None)
        tail = None
        if after is not None:
            self.leave = Adapter(after, sides[1].shapes[after.teacher])
            self.shape = sides[0].shapes[after.student]
            tail = Segment(teacher, after.teacher)
        trained = {id(parameter) for parameter in own.parameters()}
        direct = ((module, module.parameters(recurse=False)) for module in student.model.modules())
        self._modules_of_it = tuple(module for module, given in direct if any(id(p) in trained for p in given))
        self._run = (student, own, tail)

    def forward(self, images: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Of images [B, C, H, W] in [0, 1] and the teacher's features of them."""
        student, own, tail = self._run
        student.model.eval()  # what lies below sees one image of zeros, which must not enter its statistics
        for module in self._modules_of_it:
            module.training = True
        x = student.normalised(images) if self.enter is None else self.enter(features[str(self.source)])
        x = own(x)
        if tail is None:
            return x
        assert self.leave is not None
        if x.ndim == 4 and tuple(x.shape[1:]) != self.shape:  # Swin's order
            x = x.permute(0, 3, 1, 2)
        return tail(self.leave(x))
