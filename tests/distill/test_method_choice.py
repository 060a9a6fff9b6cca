"""`distill.method`: what may stand there, how methods combine, and a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.config import DistillConfig, load_config, map_names, method_choices
from edgekd.distill.methods._base import Batch, Method, Outputs
from edgekd.distill.methods._combined import Combined, Part, make_method
from edgekd.distill.methods.ce import CrossEntropy
from edgekd.distill.methods.kd import KD, kd_loss
from edgekd.errors import ConfigError
from edgekd.init import config_text
from edgekd.pipeline.dependencies import method_identity

OWN = '''
from torch import Tensor
from edgekd.distill.methods._base import Method

class Gap(Method):
    """Mean squared gap of the logits."""

    needs = ("embeddings",)
    minimum = 0.0

    def __init__(self, power: int = 2) -> None:
        super().__init__()
        self.power = power

    def loss(self, student, teacher, batch, step):
        return {"gap": (student.logits - teacher.logits).abs().pow(self.power).mean()}

class Reversed(Gap):
    def backward(self, terms: dict[str, Tensor]) -> None:
        (-sum(terms.values())).backward()

class Owner(Gap):
    owns_labels = True

class Sceptic(Gap):
    def __init__(self, belief: "Unknown" = 1):
        raise ValueError(f"belief {belief!r} is not for me")

class Odd(Gap):
    needs = ("magic",)
'''
WILLING = """
from dataclasses import replace

class Willing(Gap):
    refuses = {"rkd": "for a test"}

    def row(self, row):
        return replace(row, min_classes=4) if self.power == 1 else row
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "my.py").write_text(OWN)
    return f"{tmp_path / 'my.py'}:"


def make(value: Any, smoothing: float = 0.0) -> Any:
    return make_method(method_choices(value), smoothing, seed=0)


def rows() -> tuple[Outputs, Outputs, Batch]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (Outputs(torch.randn(6, 5, generator=generator)) for _ in range(2))
    return student, teacher, Batch(np.zeros((6, 2, 2, 3), np.uint8), torch.arange(6) % 5, np.arange(6), 0)


def test_a_name_is_the_method_itself() -> None:
    method, row = make("kd")
    assert type(method) is KD and row.name == "kd" and method.temperature == 4.0
    assert type(make(["kd"])[0]) is KD and type(make({"kd": None})[0]) is KD


def test_options_and_smoothing_reach_the_owner() -> None:
    method, _ = make({"kd": {"temperature": 2, "zscore": True}}, smoothing=0.1)
    assert (method.temperature, method.zscore, method.label_smoothing) == (2.0, True, 0.1)
    assert make({"kd": {"label_smoothing": 0.2}}, smoothing=0.1)[0].label_smoothing == 0.2


def test_factors_scale_all_terms() -> None:
    student, teacher, batch = rows()
    whole = make("kd")[0].loss(student, teacher, batch, 0)
    for value in ({"kd": 0.25}, {"kd": {"weight": 0.25}}, [{"kd": 0.25}]):
        terms = make(value)[0].loss(student, teacher, batch, 0)
        assert {k: v.item() for k, v in terms.items()} == {k: pytest.approx(v.item() / 4) for k, v in whole.items()}


def test_cross_entropy_is_added_where_nobody_owns_the_label(own: str) -> None:
    student, teacher, batch = rows()
    method, row = make([{f"{own}Gap": 3}], smoothing=0.1)
    terms = method.loss(student, teacher, batch, 0)
    gap = (student.logits - teacher.logits).square().mean()
    expected = nn.functional.cross_entropy(student.logits, batch.labels, label_smoothing=0.1)
    assert list(terms) == ["ce", "gap"]
    assert terms["ce"].item() == pytest.approx(expected.item()) and terms["gap"].item() == pytest.approx(3 * gap.item())
    assert row.name == "Gap" and set(row.needs) == {"labels", "embeddings"} and row.owns_labels


def test_an_owner_among_others(own: str) -> None:
    student, teacher, batch = rows()
    method, row = make(["kd", {f"{own}Gap": {"power": 1, "weight": 0.5}}])
    terms = method.loss(student, teacher, batch, 0)
    assert terms["kd"].item() == pytest.approx(0.9 * kd_loss(student.logits, teacher.logits).item())
    assert terms["gap"].item() == pytest.approx(0.5 * (student.logits - teacher.logits).abs().mean().item())
    assert row.name == "kd + Gap" and row.replayable


def test_a_weight_of_its_own_is_the_methods() -> None:
    class Weighted(Method):
        def __init__(self, weight: float = 7.0) -> None:
            super().__init__()
            self.weight = weight

    from edgekd.distill.methods import _custom

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_custom, "Weighted", Weighted, raising=False)
        name = "edgekd.distill.methods._custom:Weighted"
        for value, weight, factor in ((name, 7, 1), ({name: {"weight": 2}}, 2, 1), ({name: 2}, 7, 2)):
            part = make(value)[0]._parts[1]
            assert (part.method.weight, part.factor) == (weight, factor)


def test_equal_terms_keep_apart() -> None:
    class Twice(Method):
        def loss(self, *_: Any) -> dict[str, Tensor]:
            return {"ce": torch.tensor(2.0)}

    student, teacher, batch = rows()
    combined = Combined([Part("ce", 1.0, CrossEntropy()), Part("twice", 0.5, Twice())])
    assert combined.loss(student, teacher, batch, 0)["twice.ce"] == 1.0


def test_gradient_surgery_sees_all_terms(own: str) -> None:
    _, teacher, batch = rows()
    logits = torch.zeros(6, 5, requires_grad=True)
    plain, reverse = (make(["kd", f"{own}{name}"])[0] for name in ("Gap", "Reversed"))
    plain.backward(plain.loss(Outputs(logits), teacher, batch, 0))
    grad, logits.grad = logits.grad, None
    reverse.backward(reverse.loss(Outputs(logits), teacher, batch, 0))
    assert grad is not None and logits.grad is not None and torch.allclose(grad, -logits.grad)


def test_options_can_change_what_the_row_says(own: str, tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(OWN + WILLING)
    assert make(f"{own}Willing")[1].needs == ("labels", "embeddings")
    assert make([{f"{own}Willing": {"power": 1}}, f"{own}Gap"])[1].min_classes == 4


def test_a_pair_that_one_refuses(own: str, tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(OWN + WILLING)
    for value in ([f"{own}Willing", "rkd"], ["rkd", f"{own}Willing"]):
        with pytest.raises(ConfigError, match="Willing cannot be listed with rkd, for a test\nKeep one of the two"):
            make(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("kdd", "distill.method: unknown name 'kdd'\nKnown: kd"),
        ({"kd": {"temprature": 2}}, "distill.method.kd: unknown option temprature\nDid you mean temperature?"),
        ({"kd": {"q": 2}}, "unknown option q\nIts options: temperature, alpha"),
        ({"kd": {"temperature": "hot"}}, "distill.method.kd.temperature: .*number.*'hot'\n.*methods show kd"),
        (["kd", "ce"], "kd and ce both own the hard-label term"),
        (["kd", {"kd": 2}], "kd is named twice"),
        ({"kd": 0}, "distill.method.kd: 0 is neither options nor a factor"),
        ({"kd": {"weight": -1}}, "distill.method.kd: -1 is neither"),
        ({"kd": "fast"}, "'fast' is neither"),
        ([], r"distill.method: \[\] is not a method"),
        (3, "distill.method: 3 is not a method\nWrite kd"),
        ({1: 2}, "is not a method"),
        ("nowhere.at_all:MyKD", "module nowhere.at_all cannot be imported"),
        ("edgekd.errors:ConfigError", "no class ConfigError that is a Method"),
    ],
)
def test_what_is_wrong_is_named(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        make(value)


def test_what_is_wrong_with_a_users_own(own: str, tmp_path: Path) -> None:
    for name, message in (
        (f"{own}Nobody", "has no class Nobody that is a Method"),
        (f"{own}Odd", "needs 'magic'\nKnown needs: labels"),
        (f"{tmp_path / 'gone.py'}:X", "gone.py does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(name)
    with pytest.raises(ConfigError, match="belief 2 is not for me\n.*methods show"):
        make({f"{own}Sceptic": {"belief": 2}})
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match="bad.py cannot be imported: ZeroDivisionError"):
        make(f"{tmp_path / 'bad.py'}:X")
    with pytest.raises(ConfigError, match="Reversed and Reversed2 both change the gradient"):
        surgeons = [make(f"{own}Reversed")[0]._parts[1].method for _ in range(2)]
        Combined([Part("Reversed", 1, surgeons[0]), Part("Reversed2", 1, surgeons[1])])


def test_its_file_counts_by_content(own: str, tmp_path: Path) -> None:
    assert make(f"{own}Gap")[0]._parts[1].method.power == 2
    (tmp_path / "my.py").write_text(OWN.replace("int = 2", "int = 3"))
    assert make(f"{own}Gap")[0]._parts[1].method.power == 3


def test_a_wrapped_file_is_found_and_counts_by_content(own: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    wrapped = "{taid: {start: 0.2, method: [./my.py:Gap, {./my.py:Owner: {power: 3}}]}}"
    file.write_text(f"data: digits\ntarget: x86-cpu\ndistill:\n  method: {wrapped}\n")
    method = load_config(file).distill.method
    assert method == {"taid": {"start": 0.2, "method": [f"{own}Gap", {f"{own}Owner": {"power": 3}}]}}
    before = map_names(method, method_identity)
    gap, _ = before["taid"]["method"]
    assert gap.endswith(":Gap") and "my.py" not in str(before) and before["taid"]["start"] == 0.2
    (tmp_path / "my.py").write_text(OWN + "pass")
    assert map_names(method, method_identity) != before
    with pytest.raises(ConfigError, match="Gap needs embeddings, and only the teacher's logits are moved"):
        make({"taid": {"method": f"{own}Gap"}})


def test_in_a_config(own: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "data: digits\ntarget: x86-cpu\ndistill:\n  method: [{./my.py:Gap: {power: 3}}, {kd: {temperature: 2}}]\n"
    )
    config = load_config(file)
    choices = method_choices(config.distill.method)
    assert [(c.name, dict(c.options)) for c in choices] == [(f"{own}Gap", {"power": 3}), ("kd", {"temperature": 2})]
    again = tmp_path / "again.yaml"
    again.write_text(config_text(config))
    assert load_config(again) == config
    with pytest.raises(ConfigError, match="distill.method: 5 is not a method"):
        load_config(file, ["distill.method=5"])
    for assignment in ("distill.method.kd.temperature=3", "distill.method={kd: {temperature: 3}}"):
        set_config = load_config(None, ["data=digits", "target=x86-cpu", assignment])
        assert set_config.distill.method == {"kd": {"temperature": 3}}
    assert DistillConfig().method == "kd"
