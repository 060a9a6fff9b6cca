"""Of a pool of images: which count, by how sure the networks were of each when they last saw it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Selection(nn.Module):
    """Of every class that is predicted, the share `keep` of its images with the highest confidence counts.

    `confidence` [N] and `predicted` [N] are what was last seen of the pool, and `limits` [C] the least confidence that
    counts, as of the last `rank`. Batches are noted by `see` and enter with `update`, so what counts does not change
    within a step; after every pass through the pool it ranks anew.
    """

    confidence: Tensor
    predicted: Tensor
    limits: Tensor

    def __init__(self, confidence: Tensor, predicted: Tensor, num_classes: int, keep: float) -> None:
        super().__init__()
        self.keep = keep
        self.register_buffer("confidence", confidence)
        self.register_buffer("predicted", predicted)
        self.register_buffer("limits", confidence.new_zeros(num_classes))
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []  # of a step: samples, their confidence, their classes
        self.rank()

    def counts(self, confidence: Tensor, predicted: Tensor) -> Tensor:
        """1.0 for what counts, else 0.0, [B]."""
        return (confidence >= self.limits[predicted]).float()

    def steps(self, images: int) -> int:
        """Of a pass through the pool, with `images` in each."""
        return max(1, len(self.confidence) // images)

    def see(self, samples: np.ndarray, confidence: Tensor, predicted: Tensor) -> None:
        self._seen.append((torch.from_numpy(samples).to(confidence.device), confidence, predicted))

    def update(self, step: int) -> None:
        """After a step: what it has seen; the ranking where a pass through the pool is over."""
        images = 0
        for samples, confidence, predicted in self._seen:
            self.confidence[samples], self.predicted[samples] = confidence, predicted
            images += len(samples)
        self._seen.clear()
        if images and (step + 1) % self.steps(images) == 0:
            self.rank()

    def rank(self) -> None:
        for label in range(len(self.limits) if self.keep < 1 else 0):
            members = self.confidence[self.predicted == label].sort().values
            if len(members):
                self.limits[label] = members[min(len(members) - 1, round((1 - self.keep) * len(members)))]

    def summary(self) -> str:
        share = self.counts(self.confidence, self.predicted).mean().item()
        classes = int((torch.bincount(self.predicted, minlength=len(self.limits)) > 0).sum())
        return f"{share:.0%} of the pool counted in the end, taken for {classes} of {len(self.limits)} classes"


def mix_distribution(images: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
    """Images [B, C, H, W], each with its channels' mean and deviation mixed: `shares` [B] are its own part of both."""
    mean, std = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True) + 1e-6
    own = shares[:, None, None, None]
    new_mean, new_std = (own * value + (1 - own) * value[partners] for value in (mean, std))
    return (images - mean) / std * new_std + new_mean


def mean_of(rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of rows [B]; 0 where nothing has a weight."""
    return (rows * weights).sum() / weights.sum().clamp_min(1e-12)
