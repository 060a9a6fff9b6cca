"""Calibration of a target on a space, on a device whose law is known: drawn, measured once, checked, kept, used."""

import hashlib
import json
import random
import zlib
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import BackendError, ConfigError, TargetError
from edgekd.profile.devices import load_device
from edgekd.profile.latency_table import LatencyTable
from edgekd.profile.operators import operators
from edgekd.progress import NullProgress
from edgekd.search import latency, latency_calibration
from edgekd.search.latency import MeasuredLatency
from edgekd.search.latency_calibration import FITTED, MACS, calibrate, draw, load_calibration
from edgekd.search.predictor import count
from edgekd.search.spaces import Genotype
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace

IMAGES = (1, 8, 8)
DEVICE = load_device("x86-cpu")
SPACE = CifarResNetSpace(4, IMAGES, DEVICE)


def network_ms(network):
    """Launches, a roofline, and a taste of every size."""
    tastes = {op: np.random.default_rng(zlib.crc32(repr(op).encode())).normal() for op in operators(network)}
    return sum((2e-3 + max(op.macs, 16 * op.traffic) * 2e-8) * np.exp(0.1 * tastes[op]) for op in operators(network))


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """The cache is a directory of its own, a graph its network, and measuring is computing; what was measured."""
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    seen = []

    def graph_latency_ms(table, device, network):
        def measure():
            seen.append(network)
            return network_ms(network)

        return table.get(f"graph {hashlib.sha256(repr(operators(network)).encode()).hexdigest()}", measure)

    for module in (latency, latency_calibration):
        monkeypatch.setattr(module, "build_network", lambda network, precision: network)
        monkeypatch.setattr(module, "graph_latency_ms", graph_latency_ms)
    return seen


def run(name="cifar-resnet", measurements=60, **options):
    options = {"classes": 4, "images": IMAGES, **options}
    return calibrate("x86-cpu", name, measurements=measurements, progress=NullProgress(), **options)


def test_sizes_are_spread_evenly_from_the_smallest_up():
    points = draw(SPACE, 60, random.Random(0))
    assert len(set(points)) == len(points) >= 55 and SPACE.smallest() in points
    assert all(SPACE.illegal(point) is None for point in points)
    macs = np.log([SPACE.point(point).macs for point in points])
    thirds, _ = np.histogram(macs, 3)
    assert thirds.min() >= 0.6 * len(points) / 3
    assert points == draw(SPACE, 60, random.Random(0)) != draw(SPACE, 60, random.Random(1))


def test_it_is_measured_once_checked_and_kept(measured):
    record = run()
    assert len(measured) == record["measurements"] >= 55
    check = record["check"]
    assert check[FITTED]["n"] == 6 and check[FITTED]["rho"] > 0.9
    assert check[FITTED]["median_error"] < check[MACS]["median_error"]
    with LatencyTable(DEVICE) as table:
        kept = load_calibration(table, SPACE)
        assert kept.measurements == len(measured) and kept.check[FITTED].rho == check[FITTED]["rho"]
        for other in (CifarResNetSpace(5, IMAGES), CifarResNetSpace(4, (1, 12, 12))):
            assert load_calibration(table, other) is None
    text = json.loads(Path(record["path"]).read_text())
    assert text["identity"] == table.identity and text["families"] == json.loads(json.dumps(record["families"]))
    assert kept.predictor.law()["families"] == record["families"]
    network = SPACE.network(SPACE.named["resnet14"])
    assert kept.predictor.predict(count(operators(network))).ms == pytest.approx(network_ms(network), rel=0.1)
    done = len(measured)
    assert run() == record and len(measured) == done


def test_a_killed_calibration_goes_on_with_what_it_has(measured, monkeypatch):
    class Killed(NullProgress):
        def task(self, *_, **__):
            raise_after = iter([None] * 20)

            class Task:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    return None

                def advance(self, amount=1):
                    if next(raise_after, "done") == "done":
                        raise KeyboardInterrupt

            return Task()

    with pytest.raises(KeyboardInterrupt):
        calibrate("x86-cpu", "cifar-resnet", measurements=60, classes=4, images=IMAGES, progress=Killed())
    assert len(measured) == 21
    record = run()
    assert len(measured) == record["measurements"]


def test_a_search_predicts_by_it_and_sums_operators_beyond(measured, monkeypatch):
    monkeypatch.setattr(latency, "operator_latency_ms", lambda table, device, op: 1.0)
    point = Genotype(depths=(1, 2, 1), widths=(16, 24, 48))
    network = SPACE.network(point)
    with MeasuredLatency(SPACE, DEVICE) as costs:
        assert costs.predict(point) == len(network) and costs.model() == {"name": "operator sum"}
        assert not costs.within(point, 1.5) and costs.within(point, 100)
    run()
    with MeasuredLatency(SPACE, DEVICE) as costs:
        ms = costs.predict(point)
        assert ms == pytest.approx(network_ms(network), rel=0.15) and costs.within(point, ms)
        assert not costs.within(point, 0.99 * ms)
        assert costs.model()["operator_sums"] == {"points": 0, "first": None}
        largest = Genotype(depths=(9, 9, 9), widths=(64, 128, 160))
        assert costs.predict(largest) == len(SPACE.network(largest))
        assert not costs.within(largest, 1.5)
        model = costs.model()
        assert (model["name"], model["operator_sums"]["points"]) == (FITTED, 1)
        assert "were measured" in model["operator_sums"]["first"]
        assert model["check"]["median_error"] < 0.1
        assert costs.measure(point) == network_ms(network)  # a finalist is measured, whatever was predicted


def test_a_fit_to_noise_is_not_kept(measured, monkeypatch):
    generator = np.random.default_rng(0)
    monkeypatch.setitem(globals(), "network_ms", lambda network: float(np.exp(generator.normal())))
    with pytest.raises(BackendError, match=r"of 6 points held out, .* for only \d+%: it is not kept"):
        run()
    with LatencyTable(DEVICE) as table:
        assert load_calibration(table, SPACE) is None


def test_bad_input(measured):
    with pytest.raises(ConfigError, match="--space: unknown name 'resnets'"):
        run("resnets")
    with pytest.raises(TargetError, match="unknown device 'x86'"):
        calibrate("x86", "cifar-resnet", progress=NullProgress())
    with pytest.raises(ConfigError, match="--measurements 20: 20 points of cifar-resnet"):
        run(measurements=20)
    assert not measured


def test_a_damaged_file_is_named(measured):
    path = Path(run()["path"])
    for text in ("{", "{}", '{"measured_ms": {"depths=1 widths=8": 1.0}, "check": {}}'):
        path.write_text(text)
        with LatencyTable(DEVICE) as table, pytest.raises(BackendError, match=r"latency calibration .* is damaged"):
            load_calibration(table, SPACE)
