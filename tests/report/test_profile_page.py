"""profile.html and the section of latency that it shares with report.html."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from sample_report import latency_row

from edgekd.report import charts, latency
from edgekd.report.profile import write_page


def page(tmp_path: Path, rows: list[dict[str, Any]]) -> tuple[str, str]:
    """The page, which is XML as well, and its text."""
    file = tmp_path / "new" / "profile.html"
    write_page(file, "student <1>.onnx", rows)
    content = file.read_text()
    return content, " ".join(" ".join(ET.fromstring(content).itertext()).split())


def row(batch: int = 1, p50: float = 1.2, artifact: str = "onnx-int8", **fields: Any) -> dict[str, Any]:
    made = latency_row(artifact, batch, p50)
    return {**made, **fields, "conditions": {**made["conditions"], **fields.get("conditions", {})}}


def test_percentiles_blocks_and_the_machine(tmp_path: Path) -> None:
    content, shown = page(tmp_path, [row(), row(8, 7.9)])
    assert content.count("<svg") == 6 and "http" not in content.replace("http-equiv", "")
    for text in ("student <1>.onnx: 1.20", "at batch 1 on x86-cpu", "1.198 – 1.204", "4.2 %", "2445 MHz → 2440 MHz"):
        assert text in shown.replace("\N{NO-BREAK SPACE}", " ")
    for text in ("0.42 → 1.02", "0.04 cores", "layer3.1", "AMD EPYC 7B13"):
        assert text in shown
    assert page(tmp_path, [row(), row(8, 7.9)])[0] == content


def test_a_comparison_says_whether_it_is_more_than_noise(tmp_path: Path) -> None:
    base = {"against": "onnx-int8", "base_p50_ms": 1.0, "says": "", "differs": {"threads": [2, 1]}}
    slower = row(comparison={**base, "ratio": 1.2, "ci95": [1.1, 1.3], "significant": True})
    same = row(8, comparison={**base, "ratio": 1.0, "ci95": [0.9, 1.1], "significant": False, "differs": {}})
    few = row(32, comparison={**base, "ratio": 1.0, "ci95": None, "significant": False, "differs": {}})
    _, shown = page(tmp_path, [slower, same, few])
    for text in ("1.100 – 1.300 slower", "0.900 – 1.100 no", "too few turns", "threads was 2 and is 1"):
        assert text in shown


def test_what_else_was_asked_for(tmp_path: Path) -> None:
    from edgekd.profile.scenario import SCENARIOS

    scenario = SCENARIOS["single-stream"].count((1_000_000,) * 100, 1)
    accuracy = {"value": 0.9117, "ci95": [0.906, 0.917], "n": 10_000, "data": "cifar10"}
    phases = {"h2d": 0.25, "compute": 1.0, "d2h": 0.125}
    _, shown = page(tmp_path, [row(scenario=scenario, accuracy=accuracy, phases_p50_ms=phases)])
    for text in (
        "not an MLPerf result",
        "MLPerf asks for 600",
        "single-stream",
        "cifar10",
        "90.60 – 91.70",
        "d2h, p50",
    ):
        assert text in shown


def test_simulated_is_in_red_and_an_estimate_in_no_chart(tmp_path: Path) -> None:
    content, _ = page(tmp_path, [row(conditions={"simulated": "a stub in place of trtexec"})])
    assert '<p class="bad">Simulated: a stub in place of trtexec.' in content and 'tag bad">simulated' in content
    estimate = latency_row("onnx-fp32", 1, 3.3, measured=False)
    assert latency.view([estimate])["charts"] == [] and latency.view([estimate])["blocks"] == []
    for draw in (lambda: charts.batches([estimate]), lambda: charts.distribution([estimate], 1)):
        with pytest.raises(AssertionError, match="never drawn"):
            draw()


def test_a_roofline_where_the_peaks_are_known(tmp_path: Path) -> None:
    """4 Gop and 20 MB: 200 operations a byte, of which 100 GB/s allow 20 TOP/s, and the peak 16."""
    roof = {"gops": 4.0, "mbytes": 20.0, "peak_tops": 16.0, "bandwidth_gbs": 100.0}
    rows = [row(p50=1.0, roofline=roof), row(8, 2.5, roofline={**roof, "gops": 2.0, "mbytes": 40.0})]
    assert [charts.reached_tops(found) for found in rows] == [4.0, 0.8]
    _, shown = page(tmp_path, rows)
    assert "Roofline: 16 to 25 % of what the datasheet's peaks allow" in shown and "16 TOP/s" in shown
    assert "Roofline" not in page(tmp_path, [row(roofline=None)])[1]


def test_bars_of_several_devices_share_no_axis() -> None:
    assert latency.view([row(), row(target="my-box")])["charts"] == []


def test_many_blocks_are_the_largest_and_the_rest() -> None:
    blocks = [{"block": f"blocks.{i}", "ms": 1.0 + i, "share": 0.01, "layers": 1} for i in range(40)]
    drawn = charts.blocks(row(blocks=blocks), "blocks-0")
    assert "blocks.39" in drawn and "blocks.20<" not in drawn and "21 more" in drawn


def test_rows_of_an_older_version_are_still_drawn(tmp_path: Path) -> None:
    new = ("p95_ms", "p50_ci95_ms", "cov_percent", "quantiles_ms", "blocks")
    old = {key: value for key, value in row().items() if key not in new}
    content, shown = page(tmp_path, [old])
    assert content.count("<svg") == 1 and "–" in shown
