"""How a student decides, beside how often it is right: Stanton et al. 2021; Ramesh et al. 2025 (arXiv 2505.15442).

A student may be as accurate as its teacher and answer otherwise, and INT8 may keep the accuracy and turn single answers
(churn). Everything is measured on test images, which chose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgekd.artifacts import Checkpoint, ModelSpec

BINS = 15
TOP = 20  # classes whose order counts
EMBEDDED = 512  # images whose embeddings are compared
BATCH = 64

Logits = NDArray[np.float32]
Classes = NDArray[np.int64]


def fidelity_rows(logits: Mapping[str, Logits], labels: Classes, shipped: str) -> list[dict[str, Any]]:
    """Rows of `compare` for logits [N, K] by artifact: each with `teacher`, and `shipped` with `onnx-fp32`.

    Keys besides: {artifact, reference, ece}; the teacher's own row has a reference of None and the ece alone.
    """
    ece = {name: calibration_error(found, labels) for name, found in logits.items()}
    pairs = [(name, "teacher") for name in logits if name != "teacher"] + [(shipped, "onnx-fp32")]
    rows: list[dict[str, Any]] = [{"artifact": "teacher", "reference": None, "ece": ece["teacher"]}]
    for name, reference in pairs:
        found = compare(logits[reference], logits[name], labels)
        rows.append({"artifact": name, "reference": reference, **found, "ece": ece[name]})
    return rows


def compare(reference: Logits, logits: Logits, labels: Classes) -> dict[str, Any]:
    """Logits [N, K] with those of a reference on the same images.

    `agreement` is the share of images with the reference's class, over all, and where it is `_right` or `_wrong` (None
    where it never is); `kl` the mean KL(reference || logits) at temperature 1 in nats; `spearman` the mean rank
    correlation of an image's logits over the reference's `TOP` likeliest classes.
    """
    theirs, same = reference.argmax(1), reference.argmax(1) == logits.argmax(1)
    right = theirs == labels
    log_p, log_q = _log_softmax(reference), _log_softmax(logits)
    return {
        "n": len(labels),
        "agreement": float(same.mean()),
        "agreement_right": float(same[right].mean()) if right.any() else None,
        "agreement_wrong": float(same[~right].mean()) if not right.all() else None,
        "kl": float((np.exp(log_p) * (log_p - log_q)).sum(1).mean()),
        "spearman": _spearman(reference, logits),
    }


def calibration_error(logits: Logits, labels: Classes) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3): |accuracy - confidence| over `BINS` bins of confidence."""
    probabilities = np.exp(_log_softmax(logits))
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def embedding_similarity(teacher: ModelSpec, student: Checkpoint, images: NDArray[np.uint8]) -> float | None:
    """Linear CKA of both classifiers' inputs on at most `EMBEDDED` of `images` [N, H, W, C].

    None where one of them has no linear classifier, as an ONNX file.
    """
    import torch

    from edgekd.data.augment import normalise
    from edgekd.errors import ModelError
    from edgekd.models import build_model, load_checkpoint
    from edgekd.models.taps import Tapped
    from edgekd.search.scorers.cka import linear_cka

    if teacher.source == "onnx":
        return None
    found = []
    for model, spec in ((build_model(teacher), teacher), (load_checkpoint(student), student.spec)):
        try:
            tapped = Tapped(model.eval(), spec.input_shape, embeddings=True)
        except ModelError:
            return None
        with torch.inference_mode():
            parts = [tapped(normalise(images[i : i + BATCH], spec.mean, spec.std)) for i in _starts(images)]
            found.append(torch.cat([part.embeddings.flatten(1) for part in parts if part.embeddings is not None]))
    return linear_cka(*found)


def _starts(images: NDArray[np.uint8]) -> range:
    return range(0, min(len(images), EMBEDDED), BATCH)


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found


def _spearman(reference: Logits, logits: Logits) -> float:
    from scipy.stats import rankdata

    top = np.argsort(-reference, axis=1, kind="stable")[:, :TOP]
    a, b = (rankdata(np.take_along_axis(x, top, axis=1), axis=1) for x in (reference, logits))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norms = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return float(((a * b).sum(1) / np.where(norms == 0, 1, norms)).mean())
