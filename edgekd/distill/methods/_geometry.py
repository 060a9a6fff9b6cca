"""Where student, teacher and label lie to each other; see `tgeo`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgekd.distill.methods._base import Outputs

CHUNK = 250  # images of one pass of the teacher


def class_means(taught: Callable[[NDArray[np.int64]], Outputs], labels: Tensor, classes: int) -> Tensor:
    """[C, C]: the teacher's mean probabilities over the training images of each class."""
    sums = torch.zeros(classes, classes, device=labels.device)
    for i in range(0, len(labels), CHUNK):
        rows = np.arange(i, min(i + CHUNK, len(labels)))
        sums.index_add_(0, labels[i : i + CHUNK], taught(rows).logits.float().softmax(1).to(labels.device))
    return sums / torch.bincount(labels, minlength=classes)[:, None]


def geometry(student: Tensor, teacher: Tensor, mean: Tensor, labels: Tensor, scalars: bool) -> Tensor:
    """u [N, 9 C], or [N, 10], of probabilities [N, C] and labels [N]."""
    truth = F.one_hot(labels, student.shape[1]).to(student.dtype)
    pairs = ((mean, student), (truth, student), (teacher, student), (teacher, truth), (mean, truth))
    squares = [(a - b).square() for a, b in pairs]
    if not scalars:
        return torch.cat([student, teacher, truth, mean, *squares], 1)
    of_label = [(p * truth).sum(1) for p in (student, teacher, mean)]
    return torch.stack([*of_label, student.amax(1), teacher.amax(1), *(s.sum(1).sqrt() for s in squares)], 1)
