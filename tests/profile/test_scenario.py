from __future__ import annotations

import pytest

from edgekd.errors import ConfigError
from edgekd.profile.scenario import SCENARIOS, find_scenario

MS = 1_000_000


def test_single_stream_is_counted_by_the_bound_of_its_90th_percentile() -> None:
    samples = tuple((i + 1) * MS for i in range(1000))
    found = SCENARIOS["single-stream"].count(samples, 1)
    assert (found["p90_ms"], found["value"], found["queries"]) == (900.0, 923.0, 1000)
    assert found["short_of"] == ["500.5 s, and MLPerf asks for 600"]
    assert "not an MLPerf result" in found["is"]
    few = SCENARIOS["single-stream"].count(samples[:63], 1)
    assert few["value"] is None and few["short_of"][1] == "63 images, and MLPerf asks for 64"


def test_offline_is_images_a_second_of_one_query() -> None:
    offline = SCENARIOS["offline"]
    assert [offline.calls(batch) for batch in (1, 32, 100)] == [24_576, 768, 246]
    found = offline.count((2000 * MS,) * 300, 100)
    assert (found["value"], found["unit"], found["queries"], found["short_of"]) == (50.0, "images/s", 1, [])


def test_what_is_no_scenario() -> None:
    assert find_scenario("offline", (1, 32)).images == 24_576
    with pytest.raises(ConfigError, match="--scenario single-stream asks one image"):
        find_scenario("single-stream", (1, 8))
    with pytest.raises(ConfigError, match="unknown 'server'"):
        find_scenario("server", (1,))
