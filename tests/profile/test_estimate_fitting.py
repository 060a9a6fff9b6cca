"""The fit finds constants that made the times, and the band covers what it promises on devices it has not seen."""

from __future__ import annotations

from dataclasses import asdict, astuple

import numpy as np
import pytest

from edgekd.profile.devices import list_devices, load_device
from edgekd.profile.estimate.fitting import PRIOR, Measured, Table, band, fit
from edgekd.profile.estimate.roofline import Constants, Work, limits, times

TRUE = Constants(
    tensor=0.4, plain=0.5, grouped=0.25, bandwidth=0.6, launch_us=7, launch_kcycles=15, launch_kcycles_old=20
)
DEVICES = [device.name for device in list_devices() if device.kind != "cpu"]
REGIMES = [(1e10, 1e5, False), (1e9, 1e5, True), (1e6, 1e8, False), (1e3, 1e3, False)]  # MACs, bytes, grouped


def made(spread: float, seed: int = 0) -> Table:
    """Twelve networks on every device, some bound by each constant; a device as a whole is off by `spread`."""
    random = np.random.default_rng(seed)
    found = []
    for name in DEVICES:
        off, device = np.exp(spread * random.standard_normal()), limits(load_device(name), "fp16")
        for macs, moved, grouped in REGIMES * 3:
            n = int(random.integers(10, 60))
            work = Work(macs * random.random(n), moved * random.random(n), np.full(n, grouped), np.zeros(n, bool))
            found.append(Measured(name, work, device, float(times(work, device, TRUE).total.sum() * off)))
    return Table(found)


def test_constants_that_made_the_times_are_found() -> None:
    """Those that two old Jetsons alone speak of stay nearer to the prior."""
    table = made(spread=0.0)
    start, end = (np.abs(np.log(np.array(astuple(c)) / astuple(TRUE))) for c in (PRIOR, fit(table, table.without())))
    old = [list(asdict(TRUE)).index(name) for name in ("plain", "launch_kcycles_old")]
    assert (end < 0.75 * start).all()
    assert np.delete(end, old).max() < 0.05 < 0.15 < np.delete(start, old).min()


def test_a_fit_does_not_look_at_what_is_left_out() -> None:
    table = made(spread=0.3)
    rest = table.without("t4")
    before = fit(table, rest)
    table.ms[~rest] *= 100
    assert fit(table, rest) == before
    assert fit(table, table.without()) != before


def test_the_band_by_hand() -> None:
    """Three devices and a fourth to come, a quarter of the weight each: the fourth may be off by anything."""
    errors = {"a": np.array([0.1, -0.2]), "b": np.array([0.3]), "c": np.array([-0.4])}
    assert band(errors, 0.25) == pytest.approx(0.2)
    assert band(errors, 0.5) == pytest.approx(0.3)
    assert band(errors, 0.75) == pytest.approx(0.4)
    assert band(errors, 0.76) == np.inf


@pytest.mark.parametrize("devices", [9, 19])
def test_the_band_covers_new_devices(devices: int) -> None:
    """Errors that are mostly a device's own: what networks share is not counted as if each were new."""
    random = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        own = 0.3 * random.standard_normal(devices + 1)
        errors = [mean + 0.1 * random.standard_normal(int(random.integers(5, 200))) for mean in own]
        width = band({str(i): column for i, column in enumerate(errors[:-1])}, 0.8)
        covered.append(float((np.abs(errors[-1]) <= width).mean()))
    assert 0.78 <= np.mean(covered) <= 0.8 + 2 / (devices + 1)
