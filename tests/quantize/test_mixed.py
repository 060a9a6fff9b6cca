"""The search for layers to keep float, on invented layers whose gains and costs are known."""

from edgekd.quantize import mixed
from edgekd.quantize.mixed import Point

GAINS = {"stem": 0.30, "depthwise": 0.20, "wide": 0.05, "head": -0.01}  # of KL
COSTS = {"stem": 0.1, "depthwise": 0.0, "wide": 1.0, "head": 0.2}  # ms


def measure(assignments):
    points = []
    for kept in assignments:
        gain, cost = sum(GAINS[k] for k in kept), sum(COSTS[k] for k in kept)
        points.append(Point(tuple(kept), 0.70 + gain / 10, 1.0 - gain, 2.0 + cost))
    return points


def test_layers_are_freed_by_gain_over_cost():
    found = mixed.search(list(GAINS), measure, fp32_top1=0.755, budget=0.0)
    assert [row["layer"] for row in found.layers] == list(GAINS)  # as the network has them
    assert mixed.order(found.layers) == ["depthwise", "stem", "wide", "head"]
    assert found.points[0].kept_float == () and len(found.points[-1].kept_float) == 4


def test_the_fastest_within_the_budget_is_chosen():
    strict = mixed.search(list(GAINS), measure, 0.752, 0.0)
    assert strict.within_budget and strict.chosen.kept_float == ("depthwise", "stem", "wide")
    loose = mixed.search(list(GAINS), measure, 0.752, 0.003)
    assert loose.chosen.kept_float == ("depthwise", "stem")
    free = mixed.search(list(GAINS), measure, 0.752, 0.06)
    assert free.chosen.latency_ms == 2.0


def test_a_budget_that_nothing_meets_takes_the_most_accurate():
    found = mixed.search(list(GAINS), measure, 0.9, 0.0)
    assert not found.within_budget
    assert found.chosen.kept_float == ("depthwise", "stem", "wide")


def test_the_front_has_no_point_that_another_beats():
    found = mixed.search(list(GAINS), measure, 0.9, 0.0)
    kept = mixed.front(found.points)
    assert [p.kept_float for p in kept] == [("depthwise",), ("depthwise", "stem"), ("depthwise", "stem", "wide")]
    assert found.to_json()["front"][0]["latency_ms"] == 2.0


def test_of_equal_top1_the_lower_kl_stays_and_costs():
    fast, near, worse = Point((), 0.7, 0.3, 1.0), Point(("a",), 0.7, 0.2, 1.1), Point(("b",), 0.7, 0.25, 1.2)
    below = Point(("a", "b"), 0.69, 0.1, 1.3)
    assert mixed.front([below, worse, near, fast, fast]) == [fast, fast, near, below]


def test_steps_are_dense_where_few_layers_are_float():
    counts = mixed.steps(52)
    assert counts[:4] == [0, 1, 2, 3] and counts[-1] == 52 and len(counts) <= mixed.STEPS + 1
    assert mixed.steps(1) == [0, 1]
