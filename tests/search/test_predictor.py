"""The latency predictor on devices whose law is known."""

import numpy as np
import pytest

from edgekd.errors import BackendError
from edgekd.profile.operators import Add, Conv, Head, Input
from edgekd.search._agreement import agreement
from edgekd.search._nnls import nnls
from edgekd.search.predictor import LatencyPredictor, Measurement, count, fit_macs

INPUT = Input(3, 32, 32)
CONVS = [Conv(c, c, k, 1, side, side) for k in (1, 3) for c in (8, 24, 64, 160) for side in (4, 8, 16, 32)]
ADDS = [Add(c, side, side) for c in (8, 64, 160) for side in (4, 16, 32)]
LAUNCH = {"Input": 0.02, "Conv 1x1": 0.001, "Conv 3x3": 0.004, "Add": 0.002}  # ms
MS_PER_MAC = {"Input": 0.0, "Conv 1x1": 2e-8, "Conv 3x3": 1e-8, "Add": 4e-8}
BALANCE = 16


def law(op):
    return LAUNCH[op.family] + MS_PER_MAC[op.family] * max(op.macs, BALANCE * op.traffic)


def networks(n, seed=0, ops=(*CONVS, *ADDS)):
    generator = np.random.default_rng(seed)
    return [[INPUT, *(ops[i] for i in generator.integers(0, len(ops), generator.integers(3, 12)))] for _ in range(n)]


def measured(found, cost=law, noise=0.0):
    generator = np.random.default_rng(1)
    return [Measurement(count(net), sum(map(cost, net)) * np.exp(noise * generator.normal())) for net in found]


def off(predictor, found, cost=law):
    """Relative errors, and the same in standard errors."""
    truth = np.array([sum(map(cost, net)) for net in found])
    guess = np.array([predictor.predict(count(net)) for net in found])
    return np.abs(guess[:, 0] / truth - 1), np.abs(guess[:, 0] - truth) / guess[:, 1]


def test_the_law_of_a_roofline_is_found_again():
    predictor = LatencyPredictor(measured(networks(120)))
    assert predictor.balance == BALANCE
    for name, family in predictor.families.items():
        if name != "Input":  # always there and of one size: launch and rate are one constant
            assert family.launch_ms == pytest.approx(LAUNCH[name], rel=1e-4)
            assert family.ms_per_mac == pytest.approx(MS_PER_MAC[name], rel=1e-4)
    assert off(predictor, networks(50, seed=2))[0].max() < 1e-4
    # By hand: 2,304 weights on 64 places; 1,024 in, 1,024 out and the weights, times 16, are fewer than the MACs.
    compute = Conv(16, 16, 3, 1, 8, 8)
    assert (compute.macs, compute.traffic) == (147_456, 4_352)
    assert predictor.predict(count([compute])).ms == pytest.approx(0.004 + 147_456e-8, rel=1e-4)
    # 64 weights on 1,024 places are fewer than 16 times 8,192 + 8,192 + 64.
    memory = Conv(8, 8, 1, 1, 32, 32)
    assert (memory.macs, 16 * memory.traffic) == (65_536, 263_168)
    assert predictor.predict(count([memory])).ms == pytest.approx(0.001 + 263_168 * 2e-8, rel=1e-4)


def test_a_size_that_the_device_dislikes_is_learned_from_whole_networks():
    awkward = Conv(24, 24, 3, 1, 16, 16)

    def cost(op):
        return law(op) * (2.5 if op == awkward else 1)

    predictor = LatencyPredictor(measured(networks(150), cost, noise=0.003))
    with_it = [net for net in networks(200, seed=2) if awkward in net]
    assert len(with_it) > 10
    assert np.median(off(predictor, with_it, cost)[0]) < 0.01
    assert predictor.predict(count([awkward])).ms == pytest.approx(cost(awkward), rel=0.1)


def test_an_operator_measured_alone_is_a_measurement_too():
    """Its size is in none of the networks and takes three times what the roofline says."""
    rare = Conv(40, 40, 3, 1, 16, 16)

    def cost(op):
        return law(op) * (3 if op == rare else 1)

    found = networks(80)
    alone = Measurement(count([rare]), cost(rare))
    without, given = (
        LatencyPredictor([*measured(found, cost, noise=0.003), *extra]) for extra in ([], [alone, alone, alone])
    )
    network = [INPUT, *CONVS[:3], rare]
    assert off(without, [network], cost)[0][0] > 0.3
    assert off(given, [network], cost)[0][0] < 0.1


def test_the_standard_error_covers_and_grows_with_what_was_not_measured():
    generator = np.random.default_rng(3)
    taste = {op: np.exp(0.2 * generator.normal()) for op in (*CONVS, *ADDS, INPUT)}

    def cost(op):
        return law(op) * taste[op]

    half = [op for i, op in enumerate(CONVS) if i % 2] + ADDS
    predictor = LatencyPredictor(measured(networks(200, ops=half), cost, noise=0.01))
    known, strange = networks(200, seed=5, ops=half), networks(200, seed=5)
    for found, least in ((known, 0.9), (strange, 0.7)):
        assert (off(predictor, found, cost)[1] <= 2).mean() >= least
    relative = [np.median([p.error_ms / p.ms for p in map(predictor.predict, map(count, f))]) for f in (known, strange)]
    assert 0.005 < relative[0] < 0.02 < 3 * relative[0] < relative[1]


def test_what_it_was_not_fitted_to_is_named():
    nets = [[INPUT, Conv(16, c, 3, 1, 8, 8), Conv(16, 16, 3, 1, 8, 8)] for c in (16, 32, 48)] * 10
    predictor = LatencyPredictor(measured(nets))
    conv = Conv(16, 32, 3, 1, 8, 8)
    assert predictor.extrapolates(count([INPUT, conv, Conv(16, 24, 3, 1, 8, 8)])) is None
    head = count([INPUT, conv, Head(32, 8, 8, 10)])
    assert predictor.extrapolates(head) == "Head was not measured"
    with pytest.raises(BackendError, match=r"Head\(c=32.* was fitted to no Head"):
        predictor.predict(head)
    large = predictor.extrapolates(count([INPUT, conv, Conv(16, 56, 3, 1, 8, 8)]))
    assert large == "Conv 3x3 of 516,096 MACs, where 147,456 to 442,368 were measured"
    image = predictor.extrapolates(count([Input(3, 64, 64), conv, conv]))
    assert image == "Input of 24,576 numbers moved, where 6,144 to 6,144 were measured"
    assert predictor.extrapolates(count([INPUT, *[conv] * 3])).startswith("a network of 884,736 MACs, where 294,912")


def test_the_same_measurements_give_the_same_predictions():
    found = measured(networks(60), noise=0.05)
    one, two = LatencyPredictor(found), LatencyPredictor(list(found))
    assert one.law() == two.law()
    assert [one.predict(count(n)) for n in networks(9, 4)] == [two.predict(count(n)) for n in networks(9, 4)]


def test_too_few():
    with pytest.raises(BackendError, match="cannot be fitted to 19 measurements"):
        LatencyPredictor(measured(networks(19)))


def test_macs_alone():
    """Relative errors: 1 + 2e-6 M through both, by hand."""
    nets = [[Conv(10, 10, 1, 1, 10, 10 * n)] for n in (1, 4)]
    line = fit_macs([Measurement(count(net), ms) for net, ms in zip(nets, (1.02, 1.08), strict=True)])
    assert line(count([Conv(10, 10, 1, 1, 10, 30)])) == pytest.approx(1.06)


def test_agreement():
    found = agreement([1.04, 1.8, 3.24, 4.0], [1.0, 2.0, 3.0, 8.0])  # off by 4, 10, 8 and 50 %, in the right order
    assert (found.n, found.rho, found.within_5) == (4, pytest.approx(1.0), 0.25)
    assert found.within_10 == 0.75 and found.median_error == pytest.approx(0.09)
    assert agreement([1.0, 3.0, 2.0], [1.0, 2.0, 3.0]).rho == pytest.approx(0.5)


def test_non_negative_least_squares():
    assert nnls(np.eye(2), np.array([2.0, -1.0])).tolist() == [2, 0]
    # Unbound it is (-1, 2); with the first at zero, (y - 1)^2 + y^2 is least at one half.
    assert nnls(np.array([[1.0, 1.0], [2.0, 1.0]]), np.array([1.0, 0.0])) == pytest.approx([0, 0.5])
    generator = np.random.default_rng(0)
    for _ in range(50):
        a, b = generator.normal(size=(30, 8)), generator.normal(size=30)
        a[:, 7] = a[:, 6]  # equal columns
        x = nnls(a, b)
        slope = a.T @ (b - a @ x)
        assert (x >= 0).all() and (slope < 1e-9).all() and np.abs(slope[x > 0]).max(initial=0) < 1e-9
