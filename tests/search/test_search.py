import json
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edgekd.artifacts import ModelSpec
from edgekd.catalog import SCORERS, SPACES, find
from edgekd.config import SearchConfig
from edgekd.data import Dataset, Split
from edgekd.errors import ConfigError, TargetError
from edgekd.models import build_model
from edgekd.progress import NullProgress
from edgekd.search import search
from edgekd.search._ranking import ranks
from edgekd.search._statistics import kendall_tau
from edgekd.search.scorers import ScoringTask
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace

SHAPE = (1, 8, 8)
SPACE = CifarResNetSpace(4, SHAPE)
TEACHER = ModelSpec("edgekd", "resnet14", 4, SHAPE, mean=(0.4,), std=(0.3,))
DEVICE = SimpleNamespace(name="x86-cpu", scheme="ort")


class FakeLatency:
    """A millisecond for every million MACs; a whole graph is `factor` of that."""

    def __init__(self, factor=1.0, space=SPACE):
        self.factor, self.space, self.measured = factor, space, []

    def predict(self, genotype):
        return self.space.point(genotype).macs / 1e6

    def within(self, genotype, limit_ms):
        return self.predict(genotype) <= limit_ms

    def measure(self, genotype):
        self.measured.append(genotype)
        return self.predict(genotype) * (self.factor(genotype) if callable(self.factor) else self.factor)

    def teacher(self, spec):
        return 12.0

    def model(self):
        return {"name": "a millisecond for a million MACs"}


def dataset():
    generator = np.random.default_rng(0)
    splits = [
        Split(generator.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8), np.arange(n, dtype=np.int64) % 4)
        for n in (48, 8, 8)
    ]
    return Dataset("tiny", ("a", "b", "c", "d"), *splits, mean=(0.5,), std=(0.25,), flips=False, digest="d" * 64)


def run(out, latency=None, seed=0, costs=None, train=None, **config):
    out.mkdir(exist_ok=True)
    config = {
        "scorer": "diswot",
        "evaluations": 24,
        "population": 8,
        "tournament": 3,
        "inits": 1,
        "batch_size": 12,
        **config,
    }
    student = search(
        out,
        teacher=TEACHER,
        data=dataset(),
        device=DEVICE,
        config=SearchConfig(**config),
        latency=latency,
        seed=seed,
        progress=NullProgress(),
        costs=costs or FakeLatency(),
        train=train,
    )
    return student, json.loads((out / "search.json").read_text())


def test_the_pareto_front_is_what_nothing_beats_in_score_and_latency(tmp_path):
    _, record = run(tmp_path, scorer="params", evaluations=60)
    front = [(row["score"], row["latency_ms"]) for row in record["pareto"]]
    assert front == sorted(front) and len(front) > 1
    everyone = [(row["score"], row["latency_ms"]) for row in record["ranking"]]
    for score, latency in everyone:
        assert any(s >= score and ms <= latency for s, ms in front)


def without_time(record):
    return {key: value for key, value in record.items() if key != "seconds"}


def test_the_record(tmp_path):
    student, record = run(tmp_path, latency="6x", max_params=200_000)
    assert record["latency_limit_ms"] == 2.0 and record["teacher_latency_ms"] == 12.0
    assert (record["space"], record["scorer"], record["scored"]) == ("cifar-resnet", "diswot", 24)
    rows = record["ranking"]
    assert len(rows) == 20 and [row["rank"] for row in rows] == list(range(1, 21))
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert [row["measured"] for row in rows] == [True] * 3 + [False] * 17
    assert all(row["latency_ms"] <= 2.0 and row["params"] <= 200_000 for row in rows)
    assert record["chosen"] == rows[0]
    assert all({"rank_params", "rank_macs", "spread"} <= set(row) for row in rows)
    assert -1 <= record["tau_params"] <= 1
    model = {"name": "a millisecond for a million MACs", "finalists": 3, "finalists_error": 0.0}
    assert record["latency_model"] == model
    baselines = {row["name"]: row for row in record["baselines"]}
    assert list(baselines) == ["resnet8", "resnet20", "resnet56", "largest legal", "random, equally fast"]
    assert not baselines["resnet56"]["legal"] and "max_params 200,000" in baselines["resnet56"]["breaks"]
    assert baselines["largest legal"]["params"] >= max(row["params"] for row in rows)
    assert student.mean == TEACHER.mean and student.std == TEACHER.std
    assert student == ModelSpec.from_json(record["chosen"]["spec"])
    assert build_model(student)(torch.zeros(2, *SHAPE)).shape == (2, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.json", "search.json"]


@pytest.mark.parametrize("name", SPACES)
def test_every_space_is_searched(tmp_path, name):
    space = SPACES[name].load()(4, SHAPE, DEVICE)
    middle = space.point(max((space.sample(random.Random(seed)) for seed in range(4)), key=str)).macs / 1e6
    costs = FakeLatency(space=space)
    student, record = run(tmp_path, latency=f"{middle}ms", costs=costs, space=name, scorer="capacity")
    assert record["scored"] == 24 and record["chosen"]["latency_ms"] <= middle
    assert all(space.illegal(space.parse(row["name"])) is None for row in record["ranking"])
    assert build_model(student)(torch.zeros(2, *SHAPE)).shape == (2, 4)


@pytest.mark.parametrize("name", SPACES)
def test_scorers_of_networks_take_every_space(name):
    space = SPACES[name].load()(4, SHAPE)
    task = ScoringTask(TEACHER, torch.randn(6, *SHAPE), torch.arange(6) % 4, 0, 1)
    for scorer in ("diswot", "az_progressivity", "naswot"):
        assert math.isfinite(find(SCORERS, "scorer", scorer).load()(task).score(space.point(space.smallest())).value)


def test_a_seed_decides(tmp_path):
    _, first = run(tmp_path / "a", latency="2ms", seed=5)
    _, again = run(tmp_path / "b", latency="2ms", seed=5)
    _, other = run(tmp_path / "c", latency="2ms", seed=6)
    assert without_time(first) == without_time(again)
    assert without_time(first) != without_time(other)


@pytest.mark.parametrize("killed_after", [1, 13])
def test_a_killed_search_goes_on_to_the_same_choice(tmp_path, monkeypatch, killed_after):
    _, unbroken = run(tmp_path / "unbroken", max_params=150_000)
    from edgekd.search.scorers.diswot import DisWOT

    scored, score = [], DisWOT.score

    def killed(self, point):
        if len(scored) == killed_after:
            raise KeyboardInterrupt
        scored.append(point.genotype)
        return score(self, point)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DisWOT, "score", killed)
        run(tmp_path / "broken", max_params=150_000)
    rest = []
    monkeypatch.setattr(DisWOT, "score", lambda self, point: (rest.append(point.genotype), score(self, point))[1])
    _, resumed = run(tmp_path / "broken", max_params=150_000)
    assert without_time(resumed) == without_time(unbroken)
    assert not set(rest) & set(scored)
    assert len(scored) + len(rest) in range(24, 24 + 4)  # the baselines too, once each


def test_scores_of_other_inputs_are_not_used(tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps({"inputs": "others", "seconds": 9.0, "scores": "garbage"}))
    _, record = run(tmp_path)
    assert record["seconds"] < 9


def test_the_first_finalist_that_holds_the_limit_is_chosen(tmp_path):
    _, free = run(tmp_path / "free", latency="2ms")
    slow = free["ranking"][0]["name"]
    costs = FakeLatency(lambda genotype: 50.0 if str(genotype) == slow else 1.0)
    student, record = run(tmp_path / "slow", latency="2ms", costs=costs)
    assert record["chosen"] == record["ranking"][1] and record["ranking"][0]["latency_ms"] > 2
    assert len(costs.measured) == 3


def test_when_no_finalist_holds_it_the_search_goes_down_the_ranking(tmp_path):
    costs = FakeLatency(1.5)
    _, record = run(tmp_path, latency="2ms", scorer="macs", costs=costs)
    assert record["chosen"]["rank"] > 3
    assert record["chosen"]["measured"] and record["chosen"]["latency_ms"] <= 2
    assert len(costs.measured) == 4  # what the ratio rules out is not measured
    assert record["latency_model"]["finalists_error"] == pytest.approx(1 / 3)  # predicted two thirds of it
    with pytest.raises(
        TargetError, match=r"latency 2 ms: of 24 candidates .* the nearest \(depths=.* takes .* on x86-cpu"
    ):
        run(tmp_path, latency="2ms", costs=FakeLatency(1000.0))


def test_impossible_limits(tmp_path):
    with pytest.raises(TargetError, match=r"latency 0\.001 ms: the fastest point"):
        run(tmp_path, latency="1us")
    with pytest.raises(TargetError, match=r"search\.max_params 50"):
        run(tmp_path, max_params=50)
    assert not (tmp_path / "search.json").exists()


def test_a_named_student_is_taken_and_held_to_the_limits(tmp_path):
    student, record = run(tmp_path, student="depths=1,2,1 widths=8,16,24", latency="2ms")
    assert student.kwargs == {"depths": [1, 2, 1], "widths": [8, 16, 24]}
    assert record["scored"] == 0 and record["scorer"] is None and record["chosen"]["measured"]
    for limits in ({"max_params": 1000}, {"max_macs": 1000}, {"latency": "1us"}):
        with pytest.raises(TargetError, match=r"search\.student 'resnet8' breaks"):
            run(tmp_path, student="resnet8", **limits)
    with pytest.raises(ConfigError, match="resnet9"):
        run(tmp_path, student="resnet9")
    with pytest.raises(ConfigError, match=r"search\.scorer: unknown name 'magic'"):
        run(tmp_path, scorer="magic")


def test_params_and_macs_rank_by_their_counts(tmp_path):
    for scorer in ("params", "macs"):
        _, record = run(tmp_path, scorer=scorer)
        assert [row[f"rank_{scorer}"] for row in record["ranking"]] == list(range(1, 21))
    assert run(tmp_path, scorer="params")[1]["tau_params"] == 1.0


def test_short_distillations_correct_the_ranking(tmp_path):
    """Trained, the shallow ones win; the prior asks for parameters and depth."""
    trained = []

    def train(out, spec):
        trained.append((out, spec))
        return 1 / sum(spec.kwargs["depths"])

    config = {"scorer": "edgekd", "evaluations": 60, "max_params": 400_000}
    _, plain = run(tmp_path / "plain", **config)
    _, record = run(tmp_path / "calibrated", train=train, calibrate=12, **config)
    assert plain["calibration"] is None
    found = record["calibration"]
    assert found["used"] and found["loo_tau"] > found["prior_tau"]
    assert [row["val_top1"] for row in found["trained"]] == [1 / sum(spec.kwargs["depths"]) for _, spec in trained]
    assert len(trained) == 12 and all(out.parent == tmp_path / "calibrated" / "calibration" for out, _ in trained)
    assert all(spec.mean == TEACHER.mean for _, spec in trained)
    depth = [sum(row["spec"]["kwargs"]["depths"]) for row in (plain["chosen"], record["chosen"])]
    assert depth[1] < depth[0]


def test_kendall_tau():
    assert kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / 6**0.5)
    assert kendall_tau([1, 1], [1, 2]) is None
    assert ranks([5, 9, 5, 1]) == [2, 1, 2, 4]
