from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import BackendError
from edgekd.profile.device import Device
from edgekd.profile.graphs import build_network
from edgekd.profile.latency_table import LatencyTable, graph_latency_ms, network_latency_ms, operator_latency_ms
from edgekd.profile.operators import Conv, Pool
from edgekd.search.spaces.cifar_resnet import CifarResNetSpace


def test_an_entry_is_measured_once_and_outlives_the_table(tmp_path: Path, device: Device) -> None:
    calls = []

    def measured() -> float:
        calls.append(1)
        return 0.5 * len(calls)

    for _ in range(2):
        with LatencyTable(device, tmp_path) as table:
            assert table.get("a", measured) == table.get("a", measured) == 0.5
    assert len(calls) == 1
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".lock"]


def test_tables_open_at_once_agree_on_who_was_first(tmp_path: Path, device: Device) -> None:
    with LatencyTable(device, tmp_path) as one, LatencyTable(device, tmp_path) as two:
        assert one.get("a", lambda: 1.0) == 1.0
        assert two.get("b", lambda: 2.0) == 2.0
        assert two.get("a", lambda: 3.0) == 1.0
    with LatencyTable(device, tmp_path) as again:
        assert len(again) == 2


def test_a_measurement_may_ask_for_another(tmp_path: Path, device: Device) -> None:
    with LatencyTable(device, tmp_path) as table:
        assert table.get("a", lambda: 1 + table.get("b", lambda: 2.0)) == 3.0
        assert table.get("b", lambda: 9.0) == 2.0
    assert len(LatencyTable(device, tmp_path)) == 2


def test_the_cache_directory_follows_the_environment(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    assert LatencyTable(device).path.parent == tmp_path / "latency"


def test_a_damaged_table_is_named(tmp_path: Path, device: Device) -> None:
    LatencyTable(device, tmp_path).get("a", lambda: 1.0)
    LatencyTable(device, tmp_path).path.write_text("{")
    with pytest.raises(BackendError, match=r"latency table .*\.json is damaged"):
        LatencyTable(device, tmp_path)


def test_four_times_the_work_costs_more(tmp_path: Path, device: Device) -> None:
    with LatencyTable(device, tmp_path) as table:
        small, large = (operator_latency_ms(table, device, Conv(c, c, 3, 1, 16, 16)) for c in (16, 64))
        assert 2 < large / small < 100
        strided = operator_latency_ms(table, device, Conv(32, 64, 3, 2, 16, 16))
        assert 0 < strided < large


def test_a_pool_is_timed_in_the_layout_of_its_neighbours(tmp_path: Path, device: Device) -> None:
    """Alone it takes the runtime's slow path, many times a convolution of the same map; between two it does not."""
    with LatencyTable(device, tmp_path) as table:
        pool = operator_latency_ms(table, device, Pool("max", 64, 3, 2, 1, 32, 32))
        conv = operator_latency_ms(table, device, Conv(64, 64, 3, 1, 32, 32))
        assert 0 < pool < conv


def test_the_sum_of_operators_is_near_the_whole_graph(tmp_path: Path, device: Device) -> None:
    """Within 5 % on a quiet machine; the bound leaves room for a busy one."""
    space = CifarResNetSpace(10, (3, 32, 32))
    network = space.network(space.named["resnet8"])
    with LatencyTable(device, tmp_path) as table:
        graph = build_network(network, "int8")
        estimate, measured = network_latency_ms(table, device, network), graph_latency_ms(table, device, graph)
        assert 0.5 < estimate / measured < 2
        assert graph_latency_ms(table, device, graph) == measured
        table.close()
        known = len(table)
        assert network_latency_ms(table, device, network) == estimate and len(table) == known
        assert table._worker is None  # nothing was left to measure
        (tmp_path / "graph.onnx").write_bytes(graph)
        assert graph_latency_ms(table, device, tmp_path / "graph.onnx") == measured
