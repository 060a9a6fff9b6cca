"""Fidelity by hand: four images, three classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgekd.artifacts import Checkpoint, ModelSpec
from edgekd.models import build_model
from edgekd.report.fidelity import calibration_error, compare, embedding_similarity, fidelity_rows


def of(*rows: tuple[float, ...]) -> Any:
    """Logits whose softmax are these probabilities."""
    return np.log(np.array(rows, np.float32))


LABELS = np.array([0, 1, 2, 0])
TEACHER = of((0.7, 0.2, 0.1), (0.1, 0.8, 0.1), (0.6, 0.3, 0.1), (0.5, 0.3, 0.2))  # wrong on the third
STUDENT = of((0.7, 0.2, 0.1), (0.6, 0.3, 0.1), (0.6, 0.3, 0.1), (0.2, 0.3, 0.5))


def test_agreement_is_split_by_whether_the_reference_is_right() -> None:
    found = compare(TEACHER, STUDENT, LABELS)
    assert found["agreement"] == 0.5 and found["agreement_right"] == pytest.approx(1 / 3)
    assert found["agreement_wrong"] == 1 and found["n"] == 4
    always = compare(TEACHER[:2], STUDENT[:2], LABELS[:2])
    assert always["agreement_wrong"] is None and always["agreement_right"] == 0.5


def test_divergence_and_order() -> None:
    found = compare(TEACHER, STUDENT, LABELS)
    second = 0.1 * math.log(0.1 / 0.6) + 0.8 * math.log(0.8 / 0.3)
    last = 0.5 * math.log(0.5 / 0.2) + 0.2 * math.log(0.2 / 0.5)
    assert found["kl"] == pytest.approx((second + last) / 4, abs=1e-6)
    # the second image: ranks 1.5, 3, 1.5 against 3, 2, 1, a correlation of 0; the last one is turned round
    assert found["spearman"] == pytest.approx((1 + 0 + 1 - 1) / 4, abs=1e-6)


def test_calibration_error() -> None:
    # confidences .7 and .8 of right answers, .6 of a wrong one, .5 of a right one: four bins of one image each
    assert calibration_error(TEACHER, LABELS) == pytest.approx((0.3 + 0.2 + 0.6 + 0.5) / 4, abs=1e-6)
    sure = of((0.98, 0.01, 0.01), (0.01, 0.98, 0.01))
    assert calibration_error(sure, np.array([0, 0])) == pytest.approx(0.48, abs=1e-6)  # one bin: half of them right


def test_a_network_is_as_its_copy() -> None:
    found = compare(TEACHER, TEACHER, LABELS)
    assert (found["agreement"], found["kl"], found["spearman"]) == (1, 0, pytest.approx(1))


def test_rows() -> None:
    logits = {"teacher": TEACHER, "onnx-fp32": STUDENT, "onnx-int8": TEACHER}
    rows = fidelity_rows(logits, LABELS, "onnx-int8")
    assert [(row["artifact"], row["reference"]) for row in rows] == [
        ("teacher", None),
        ("onnx-fp32", "teacher"),
        ("onnx-int8", "teacher"),
        ("onnx-int8", "onnx-fp32"),
    ]
    assert rows[2]["agreement"] == 1 and rows[3]["agreement"] == 0.5
    assert rows[0]["ece"] == rows[3]["ece"] == calibration_error(TEACHER, LABELS)


def test_embeddings(tmp_path: Any) -> None:
    torch.manual_seed(0)
    spec = ModelSpec("edgekd", "resnet8", 10, (3, 16, 16), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    student = Checkpoint(str(tmp_path), spec)
    save_file(build_model(spec).state_dict(), student.weights)
    own = ModelSpec(**{**spec.__dict__, "weights": str(student.weights)})
    assert embedding_similarity(own, student, images) == pytest.approx(1, abs=1e-6)
    other = embedding_similarity(spec, student, images)  # of random weights
    assert other is not None and other < 0.99
    assert embedding_similarity(ModelSpec("onnx", "x", 10, (3, 16, 16)), student, images) is None
