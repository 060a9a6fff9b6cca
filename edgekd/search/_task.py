"""What a search scores on: one batch of training images, drawn by the seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.artifacts import ModelSpec
from edgekd.catalog import SCORERS, find
from edgekd.config import SearchConfig
from edgekd.search.scorers import Scorer, ScoringTask

if TYPE_CHECKING:
    from edgekd.data import Dataset


def make_scorer(teacher: ModelSpec, data: Dataset, config: SearchConfig, seed: int) -> Scorer:
    """The scorer that `config` names, on this teacher and data. Raises ConfigError for an unknown one."""
    import numpy as np
    import torch

    from edgekd.data.augment import normalise

    row = find(SCORERS, "search.scorer", config.scorer)
    count = min(config.batch_size, len(data.train))
    batch = np.sort(np.random.default_rng([*b"search", seed]).choice(len(data.train), count, replace=False))
    images = normalise(data.train.images[batch], *normalisation(teacher, data))
    scorer: Scorer = row.load()(
        ScoringTask(teacher, images, torch.from_numpy(data.train.labels[batch]), seed, config.inits)
    )
    return scorer


def normalisation(teacher: ModelSpec, data: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The teacher's: one normalised batch then serves both networks."""
    return teacher.mean or data.mean, teacher.std or data.std
