"""How a range is read off the values a tensor took in calibration: the rules of `quantize.calibrator`.

All but `minmax` work on torchao's running histogram; `mse` is torchao's own search for the least squared error. The
other two find a threshold T on |x| and cut the range that was seen to [-T, T].
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.quantize._torchao import HistogramObserver, MinMaxObserver

SHARE = 0.9999  # of the values, inside the range of `percentile`
STEP = 16  # bins between the thresholds it tries


class _Threshold(HistogramObserver):  # type: ignore[misc]
    def threshold(self, counts: Tensor) -> int:
        """How many of the equal bins over |x|, `counts` values in each, to keep."""
        raise NotImplementedError

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        low, high, bins = self.min_val, self.max_val, len(self.histogram)
        top = torch.maximum(low.abs(), high.abs())
        centres = low + (torch.arange(bins, device=low.device) + 0.5) * (high - low) / bins
        places = (centres.abs() / top.clamp_min(1e-12) * bins).long().clamp_max(bins - 1)
        counts = torch.zeros(bins, dtype=torch.float64, device=low.device)
        counts.index_add_(0, places, self.histogram.double())
        kept = top * self.threshold(counts) / bins
        return torch.maximum(low, -kept), torch.minimum(high, kept)


class Percentile(_Threshold):
    """The least range that holds `SHARE` of the values."""

    def threshold(self, counts: Tensor) -> int:
        below = counts.cumsum(0) / counts.sum().clamp_min(1)
        return int((below < SHARE).sum()) + 1


class Entropy(_Threshold):
    """The range whose quantized distribution is nearest to the clipped one: least KL divergence (Migacz, GTC 2017).

    Zero has a level of its own in every range, so the zeros of a ReLU say nothing about which is best: left in, their
    mass would make any loss look small, and the least range win. As NVIDIA's, the first bin counts as the second does.
    """

    def threshold(self, counts: Tensor) -> int:
        counts, affine = counts.clone(), self.qscheme == torch.per_tensor_affine
        counts[0] = counts[1]
        both = not affine or bool(self.min_val < 0 < self.max_val)  # signs share the levels
        whole = self.quant_max - self.quant_min + 1
        n = whole // 2 if both else whole
        best, kept = float("inf"), len(counts)
        for bins in range(n, len(counts) + 1, STEP):
            inside = counts[:bins]
            reference = inside.clone()
            reference[-1] += counts[bins:].sum()
            levels = torch.arange(bins) * n // bins
            filled = (inside > 0).double()
            mass, width = (torch.zeros(n, dtype=torch.float64).index_add_(0, levels, x) for x in (inside, filled))
            quantized = (mass / width.clamp_min(1))[levels] * filled
            divergence = _kl(reference, quantized)
            if divergence < best:
                best, kept = divergence, bins
        return kept


def _kl(p: Tensor, q: Tensor) -> float:
    """KL(p || q) of two unnormalised histograms; infinite where q lacks what p has."""
    p, q = p / p.sum().clamp_min(1e-12), q / q.sum().clamp_min(1e-12)
    seen = p > 0
    return float((p[seen] * (p[seen] / q[seen].clamp_min(1e-12)).log()).sum())


CALIBRATORS = {
    "minmax": MinMaxObserver,
    "percentile": Percentile,
    "mse": HistogramObserver,
    "entropy": Entropy,
}
