import random

import pytest

from edgekd.errors import TargetError
from edgekd.search.evolution import evolve
from edgekd.search.limits import Limits
from edgekd.search.scorers import Score
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace

SPACE = CifarResNetSpace(10, (3, 32, 32))


class FakeLatency:
    """A millisecond for every million MACs, and a graph `factor` times slower than its operators."""

    def __init__(self, factor=1.0, teacher_ms=60.0):
        self.factor, self.teacher_ms, self.measured = factor, teacher_ms, []

    def predict(self, genotype):
        return SPACE.point(genotype).macs / 1e6

    def within(self, genotype, limit_ms):
        return self.predict(genotype) <= limit_ms

    def measure(self, genotype):
        self.measured.append(genotype)
        return self.predict(genotype) * self.factor

    def teacher(self, spec):
        return self.teacher_ms


def capacity(genotype):
    return Score(float(SPACE.point(genotype).params))


class FakeJudge:
    """Scores by a function, and keeps what it was asked in order."""

    def __init__(self, score):
        self.function, self.scores, self.founders = score, {}, []

    def settle(self, founders):
        assert not self.scores and not self.founders
        self.founders = list(founders)

    def score(self, genotypes):
        for genotype in genotypes:
            assert genotype not in self.scores
            self.scores[genotype] = self.function(genotype)

    def value(self, genotype):
        return self.scores[genotype].value


def run(score=capacity, limits=None, seed=0, judge=None, **settings):
    limits, judge = limits or Limits(), judge or FakeJudge(score)
    settings = {"evaluations": 120, "population": 16, "tournament": 4, **settings}
    admits = lambda genotype: limits.admit(SPACE, genotype, FakeLatency())  # noqa: E731
    return evolve(SPACE, judge, admits, generator=random.Random(seed), **settings)


def test_every_individual_is_legal_holds_the_limits_and_is_scored_once():
    limits = Limits(max_params=300_000, max_macs=45_000_000, latency_ms=30.0)
    everyone = run(limits=limits)
    assert len(set(everyone)) == len(everyone) == 120
    for genotype in everyone:
        point = SPACE.point(genotype)
        assert SPACE.illegal(genotype) is None
        assert point.params <= 300_000 and point.macs <= 30_000_000


def test_a_seed_decides():
    assert run(seed=3) == run(seed=3)
    assert run(seed=3) != run(seed=4)


def test_parents_are_the_best_of_a_tournament():
    """Against the distance to one point, evolution must close in on it, and beat as many random draws."""
    goal = Genotype(depths=(4, 6, 2), widths=(24, 40, 96))

    def closeness(genotype):
        gaps = [a - b for a, b in zip(genotype.depths, goal.depths, strict=True)]
        gaps += [(a - b) // 8 for a, b in zip(genotype.widths, goal.widths, strict=True)]
        return Score(-float(sum(abs(gap) for gap in gaps)))

    evolved = [closeness(genotype).value for genotype in run(closeness, evaluations=200, tournament=8)]
    at_random = [closeness(genotype).value for genotype in run(closeness, evaluations=200, population=200)]
    assert max(evolved[-20:]) >= -2
    assert max(evolved) > max(at_random)
    assert sum(evolved[-20:]) > sum(at_random[-20:]) + 20


def test_the_first_population_settles_what_is_scored():
    judge = FakeJudge(capacity)
    everyone = run(judge=judge, population=12, evaluations=30)
    assert judge.founders == everyone[:12] and list(judge.scores) == everyone


def test_the_oldest_dies():
    """An individual that wins every tournament has all the children while it lives, and none afterwards."""
    star = run(evaluations=8, population=8)[-1]
    births = []

    def score(genotype):
        births.append(genotype)
        return Score(1.0 if genotype == star else 0.0)

    run(score, evaluations=24, population=8, tournament=8)
    assert births[7] == star
    kin = [sum(a == b for a, b in zip(g.depths + g.widths, star.depths + star.widths, strict=True)) for g in births]
    assert min(kin[8:16]) >= 5  # the star's children differ from it in one gene
    assert min(kin[16:]) < 5


def test_a_space_with_few_legal_points_is_exhausted():
    smallest = SPACE.point(SPACE.smallest())
    everyone = run(limits=Limits(max_params=smallest.params))
    assert everyone == [smallest.genotype]
    few = run(limits=Limits(max_params=smallest.params + 3000), evaluations=50)
    assert 1 < len(few) < 50


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_params=100), r"search\.max_params 100: the smallest point of cifar-resnet .* has 1\d,\d{3}"),
        (Limits(max_macs=1000), r"search\.max_macs 1,000: the smallest point of cifar-resnet"),
        (Limits(latency_ms=0.01), r"latency 0\.01 ms: the fastest point .*depths=1,1,1.* takes 2\.\d+ ms on x86-cpu"),
    ],
)
def test_a_limit_no_point_holds_is_named_with_the_nearest(limits, message):
    with pytest.raises(TargetError, match=message):
        limits.require_feasible(SPACE, FakeLatency(), "x86-cpu")
    Limits(10**6, 10**8, 10.0).require_feasible(SPACE, FakeLatency(), "x86-cpu")
