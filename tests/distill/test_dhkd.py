"""DHKD against its golden value and its first form, its head, and gradients that do not work against the rest."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from making_features import SLIM_CNN, batch, outputs, setup, side
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.config import method_choices
from edgekd.distill.methods import dhkd
from edgekd.distill.methods._base import Outputs
from edgekd.distill.methods._combined import make_method
from edgekd.distill.methods.dhkd import DHKD, log_cosh_loss, reached
from edgekd.errors import ConfigError

S, T = torch.tensor([[2, 0.5, -1, 0]]), torch.tensor([[3, 1, -2, 0.5]])
SIDE = side(SLIM_CNN)


def made(**options: object) -> DHKD:
    method = DHKD(**options)
    method.prepare(setup(SIDE, None))
    return method


def test_golden_value() -> None:
    assert 4 * log_cosh_loss(S, T, 2.0).item() == pytest.approx(0.309776, abs=1e-6)


def test_it_is_binary_kl_norm() -> None:
    student, teacher = torch.randn(2, 9, 5, dtype=torch.float64)
    d = torch.sigmoid((student - teacher) / 3)
    expected = (0.5 * (0.5 / d).log() + 0.5 * (0.5 / (1 - d)).log()).sum(1)
    assert torch.allclose(log_cosh_loss(student, teacher, 3.0), expected)


def test_it_is_finite_and_its_gradient_bounded_however_far_the_logits() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = 4 * log_cosh_loss(student, torch.zeros(1, 3), 2.0).sum()
    loss.backward()
    assert loss.item() == pytest.approx(2 * (1e4 / 4 - 0.6931) * 4, rel=1e-5)
    assert student.grad[0].tolist() == pytest.approx([1, -1, 0])  # T / 2 tanh


def test_the_head_alone_learns_the_teacher() -> None:
    method, student = made(weight=3.0), outputs(SIDE, 0, grad=True)
    target = torch.randn(8, 5)
    terms = method.loss(student, Outputs(target), batch(), 0)
    expected = 3 * 4 * log_cosh_loss(method.head(student.embeddings), target).mean()
    assert terms["dhkd"].item() == pytest.approx(expected.item(), rel=1e-5)
    terms["dhkd"].backward()
    assert method.head.weight.grad is not None and SIDE.classifier.weight.grad is None
    net = nn.Linear(1, 1)
    assert method.export(net) is net


def test_a_deeper_head() -> None:
    method = made(hidden=200)
    assert [type(layer) for layer in method.head] == [nn.Linear, nn.Dropout, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [tuple(p.shape) for p in method.parameters()] == [(200, 12), (200,), (200,), (200,), (5, 200), (5,)]
    assert "head.2.running_mean" in method.state_dict()
    with pytest.raises(ConfigError, match="distill.method dhkd: hidden is 0"):
        DHKD(hidden=0)


def test_it_stops_after_its_share_of_the_run() -> None:
    method = made(stop=0.5)  # of ten steps
    values = [method.loss(outputs(SIDE, 0), Outputs(T.new_ones(8, 5)), batch(), step)["dhkd"].item() for step in (4, 5)]
    assert values[0] > 0 == values[1]


def test_centring_forgets_where_the_teachers_logits_lie() -> None:
    target = torch.randn(8, 5)
    for centre in (False, True):
        method = made(centre=centre)
        near, far = (method.loss(outputs(SIDE, 0), Outputs(target + x), batch(), 0)["dhkd"].item() for x in (0, 20))
        assert (far == pytest.approx(near, rel=1e-4)) == centre


def test_what_a_term_reaches() -> None:
    trunk, one, other = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)
    x = trunk(torch.randn(5, 3)).relu()
    assert set(reached(one(x).sum())) == {*trunk.parameters(), *one.parameters()}
    assert set(reached(other(x).mean() + x.sum())) == {*trunk.parameters(), *other.parameters()}


class Trunk(nn.Module):
    """A trunk under two heads and their two terms on fixed data, which conflict where `sign` is -1."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.own, self.rest, self.sign = nn.Linear(6, 4), nn.Linear(4, 1), nn.Linear(4, 1), sign
        self.rest.weight.data = self.own.weight.data + 0.1 * torch.randn(1, 4)
        self.x = torch.randn(16, 6)

    def terms(self, rows: slice = slice(None)) -> dict[str, Tensor]:
        z = self.trunk(self.x[rows]).relu()
        return {"ce": self.rest(z).mean(), "dhkd": self.sign * self.own(z).mean()}

    def grads(self) -> Mapping[str, Tensor]:
        found = {key: p.grad for key, p in self.named_parameters() if p.grad is not None}
        self.zero_grad()
        return found


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_works_against_the_rest_is_taken_out_of_the_shared_gradient(sign: float) -> None:
    net = Trunk(sign)
    for name in ("ce", "dhkd"):
        net.terms()[name].backward()
        if name == "ce":
            rest = net.grads()
        else:
            own = net.grads()
    shared = [key for key in own if key in rest]
    assert shared == ["trunk.weight", "trunk.bias"]
    dot = sum((own[key] * rest[key]).sum() for key in shared)
    assert dot.sign() == sign
    if sign < 0:
        norm = sum(rest[key].square().sum() for key in shared)
        own = {key: g - dot / norm * rest[key] if key in shared else g for key, g in own.items()}
        assert sum((own[key] * rest[key]).sum() for key in shared).item() == pytest.approx(0, abs=1e-6)
    made(align=True).backward(net.terms())
    for key, grad in net.grads().items():
        assert torch.allclose(grad, own.get(key, 0) + rest.get(key, 0), atol=1e-6), key


def test_several_processes_project_the_mean_of_their_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    net, method = Trunk(-1.0), made(align=True)
    method.backward(net.terms())
    whole = net.grads()
    halves = (slice(0, 8), slice(8, 16))
    shares: list[list[Tensor]] = []
    monkeypatch.setattr(dhkd, "average", lambda values: shares.append([value.clone() for value in values]))
    alone = []
    for rows in halves:
        method.backward(net.terms(rows))
        alone.append(net.grads())
    monkeypatch.setattr(
        dhkd, "average", lambda values: [v.copy_((a + b) / 2) for v, a, b in zip(values, *shares, strict=True)]
    )
    for rows in halves:
        method.backward(net.terms(rows))
        assert all(torch.allclose(grad, whole[key], atol=1e-6) for key, grad in net.grads().items())
    after = (alone[0]["trunk.weight"] + alone[1]["trunk.weight"]) / 2  # of each one's own projection
    assert not torch.allclose(after, whole["trunk.weight"], atol=1e-4)


def test_gradients_add_to_those_that_are_there() -> None:
    net, method = Trunk(-1.0), made(align=True)
    method.backward(net.terms())
    once = net.grads()
    for _ in range(2):
        method.backward(net.terms())
    assert all(torch.allclose(grad, 2 * once[key], atol=1e-6) for key, grad in net.grads().items())


def test_it_stands_beside_others() -> None:
    method, row = make_method(method_choices(["pld", {"dhkd": {"align": True}}]), 0.0, 0)
    assert method.surgery and set(row.needs) == {"labels", "all_logits", "student_embeddings"} and row.replayable
    assert not row.asks("teacher")["embeddings"] and row.asks("student")["embeddings"]
    assert not make_method(method_choices(["dhkd"]), 0.0, 0)[0].surgery


def test_aligned_terms_in_a_combination() -> None:
    method, _ = make_method(method_choices(["kd", {"dhkd": {"align": True, "weight": 0.5}}]), 0.0, 0)
    method.prepare(setup(SIDE, None))
    student, target = outputs(SIDE, 0, grad=True), torch.randn(8, 5)
    terms = method.loss(student, Outputs(target), batch(), 0)
    assert terms["ce"].item() == pytest.approx(0.1 * F.cross_entropy(student.logits, batch().labels).item())
    method.backward(terms)
    assert SIDE.classifier.weight.grad is not None and all(p.grad is not None for p in method.parameters())
    SIDE.classifier.zero_grad()
