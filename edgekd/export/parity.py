"""Does an exported graph compute what the checkpoint computes? Both run on the same validation images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ParityError

IMAGES = 256
FP32_TOLERANCE = 1e-3  # of the largest logit: another order of summation, not another function
INT8_AGREEMENT = 0.98  # rounding ties fall differently in the runtime's kernels and may turn a close decision;
TIES = 3  # so many images may differ however few there are
INT8_COSINE = 0.99

Logits = NDArray[np.float32]


def compare(runtime: Logits, torch: Logits) -> dict[str, Any]:
    """Two sets of logits [N, K]: {n, max_abs_error, max_rel_error, mean_abs_error, cosine, top1_agreement}.

    `max_rel_error` is relative to the largest logit of torch; `cosine` is over all logits at once.
    """
    scale = max(float(np.abs(torch).max()), 1e-12)
    error = np.abs(runtime - torch)
    norms = float(np.linalg.norm(runtime)) * float(np.linalg.norm(torch))
    return {
        "n": len(torch),
        "max_abs_error": float(error.max()),
        "max_rel_error": float(error.max()) / scale,
        "mean_abs_error": float(error.mean()),
        "cosine": min(1.0, float((runtime * torch).sum()) / max(norms, 1e-12)),
        "top1_agreement": float((runtime.argmax(1) == torch.argmax(1)).mean()),
    }


def check(path: Path, precision: str, runtime: Logits, torch: Logits) -> dict[str, Any]:
    """The parity record of a graph; raises ParityError when it is not what the checkpoint computes."""
    record = compare(runtime, torch)
    if precision == "fp32":
        bad = record["max_rel_error"] > FP32_TOLERANCE
        figure = f"an error of {record['max_rel_error']:.2g} of the largest logit, above {FP32_TOLERANCE}"
    else:
        differing = round((1 - record["top1_agreement"]) * record["n"])
        bad = differing > max(TIES, (1 - INT8_AGREEMENT) * record["n"]) or record["cosine"] < INT8_COSINE
        figure = (
            f"top-1 agreement {record['top1_agreement']:.3f} and cosine {record['cosine']:.4f}, "
            f"below {INT8_AGREEMENT} and {INT8_COSINE}"
        )
    if bad or not np.isfinite(runtime).all():
        raise ParityError(
            f"{path.name} does not compute what its checkpoint computes: {figure} on {record['n']} images",
            "Try another export.opset; for INT8 on a processor other than the one it was quantized on, quantize there.",
        )
    return record
