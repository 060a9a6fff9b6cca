from __future__ import annotations

import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sample_report import STAGES, latency_row, write_run

from edgekd.errors import RunDirectoryError
from edgekd.report import build_report, charts, collect, units, verdict
from edgekd.report.html import lint_lines, render
from edgekd.report.terminal import latency_table, ledger_table

TARGETS = ("", *STAGES)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return collect(write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def page(report: dict[str, Any]) -> str:
    return render(report)


def parse(page: str) -> ET.Element:
    """The page is XML as well, so a parser finds every tag that is not closed and every `<` that is not escaped."""
    return ET.fromstring(page)


def text(page: str) -> str:
    return " ".join("".join(parse(page).itertext()).replace("\u00a0", " ").split())


def test_the_keys_are_stable(report: dict[str, Any]) -> None:
    contract = {"teacher", "search", "ledger", "latency", "stages"}
    beside = {"schema", "target", "data", "verdict", "distill", "quantize", "parity", "lint", "conditions", "config"}
    assert set(report) == contract | beside
    assert set(report["teacher"]) == {"name", "top1", "params", "macs"}
    assert {"space", "scorer", "scored", "seconds", "chosen", "ranking"} <= set(report["search"])
    assert {"spec", "params", "macs", "latency_ms"} <= set(report["search"]["chosen"])
    ledger = {"artifact", "metric", "value", "n", "agreement_with_teacher", "size_bytes", "runtime", "path"}
    latency = {"artifact", "target", "backend", "precision", "batch", "p50_ms", "p90_ms", "p99_ms", "mean_ms"}
    latency |= {"throughput_per_s", "n", "measured", "conditions"}
    assert all(ledger <= set(row) for row in report["ledger"])
    assert all(latency <= set(row) for row in report["latency"])
    assert all({"name", "seconds", "cached", "fingerprint"} <= set(row) for row in report["stages"])


def test_the_verdict_compares_what_ships(report: dict[str, Any]) -> None:
    found = report["verdict"]
    assert (found["artifact"], found["batch"], found["threads"]) == ("onnx-int8", 1, 1)
    assert (found["teacher_top1"], found["top1"]) == (0.9437, 0.9169)
    assert found["drop"] == pytest.approx(0.0268)
    assert found["speedup"] == pytest.approx(9.41 / 1.183)
    assert found["size_ratio"] == pytest.approx(3_448_211 / 402_113)
    assert report["teacher"]["top1"] == 0.9437


def test_an_estimate_is_no_verdict() -> None:
    rows = [latency_row("teacher", 1, 9.0), latency_row("onnx-int8", 1, 1.0, measured=False)]
    found = verdict([], [*rows, latency_row("onnx-int8", 32, 30.0)])
    assert found["p50_ms"] is found["speedup"] is None
    assert verdict([], [*rows, latency_row("onnx-int8", 1, 2.0)])["speedup"] == 4.5


def test_build_writes_what_it_returns(tmp_path: Path) -> None:
    report = build_report(write_run(tmp_path))
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert (tmp_path / "report.html").read_text() == render(report)


def test_same_report_same_bytes(report: dict[str, Any], page: str) -> None:
    assert render(json.loads(json.dumps(report))) == page


def test_the_page_needs_nothing_else(page: str) -> None:
    root = parse(page)
    assert root.tag == "html"
    assert not re.search(r"https?:|//|@import|url\((?!#)", page.replace("</", "<"))
    assert not {"script", "link", "img", "iframe", "object"} & {element.tag for element in root.iter()}
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(reference in ids for reference in re.findall(r'(?:href="|url\()#([^")]+)', page))


def test_the_page_shows_the_figures(page: str) -> None:
    shown = text(page)
    for figure in (
        "91.69 %",
        "−2.68 pt",
        "91.13 – 92.22",
        "8.0×",
        "8.6×",
        "1.18 ms",
        "402 kB",
        "onnxruntime-cpu 1.31.1",
    ):
        assert figure in shown
    for figure in ("21/21", "10,000", "unsteady: one run", "26 min 44 s", "cached", "4.1e−06", "over a limit"):
        assert figure in shown
    assert len(parse(page).findall(".//svg")) == 6  # accuracy, size, two batches, search, training


def test_a_name_is_text_and_never_markup(tmp_path: Path) -> None:
    name = "<script>alert('x')</script> & \"$\\alpha$ 数据"
    page = render(collect(write_run(tmp_path, data=name)))
    assert "<script" not in page and name in text(page)


@pytest.mark.parametrize("until", TARGETS)
def test_a_run_that_stopped_says_what_has_not_run(tmp_path: Path, until: str) -> None:
    report = collect(write_run(tmp_path, until))
    shown = text(render(report))
    done = STAGES[: STAGES.index(until) + 1] if until else ()
    for stage in STAGES:
        named = "Student search Space" in shown if stage == "search" else f"{stage.capitalize()}: not run." not in shown
        assert named == (stage in done), stage
    assert ("the run is not complete" in shown) == (until not in ("export", "profile"))
    assert bool(report["latency"]) == (until == "profile")
    for draw in (ledger_table, latency_table):
        assert ("not run" in str(draw(report).title)) == (not report["ledger" if draw is ledger_table else "latency"])


def test_a_directory_of_other_inputs_is_not_reported(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "profile" / "stage.json").write_text(json.dumps({"name": "profile", "fingerprint": "old"}))
    report = collect(tmp_path)
    assert report["latency"] == [] and report["ledger"]
    shutil.rmtree(tmp_path / "search")
    assert collect(tmp_path)["search"] is None


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"run\.json"):
        build_report(tmp_path)
    assert not list(tmp_path.iterdir())
    write_run(tmp_path)
    (tmp_path / "export" / "ledger.json").write_text("[{")
    with pytest.raises(RunDirectoryError, match=r"ledger\.json"):
        build_report(tmp_path)


def test_an_estimate_is_marked_and_not_drawn(report: dict[str, Any], page: str) -> None:
    guess = {**latency_row("engine-int8", 1, 0.5, measured=False), "p90_ms": None, "p99_ms": None}
    marked = render({**report, "latency": [*report["latency"], guess]})
    (row,) = [row for row in parse(marked).iter("tr") if row.get("class") == "estimate"]
    cells = [" ".join("".join(cell.itertext()).split()) for cell in row]
    assert cells[:5] == ["engine-int8", "1", "≈ 0.500 ms", units.DASH, units.DASH] and "estimate" in cells
    assert [*re.findall(r"<svg.*?</svg>", marked, re.S)] == [*re.findall(r"<svg.*?</svg>", page, re.S)]
    with pytest.raises(AssertionError, match="never drawn"):
        charts.latency([guess], 1)


def test_a_student_that_was_named_has_no_ranking(report: dict[str, Any]) -> None:
    chosen = {**report["search"]["chosen"], "score": None}
    named = {**report["search"], "scorer": None, "scored": 0, "chosen": chosen, "ranking": [chosen], "baselines": []}
    shown = text(render({**report, "search": {**named, "tau_params": None, "latency_limit_ms": None}}))
    assert "the student was named, nothing was scored" in shown


def test_what_runs_in_float_stands_out(report: dict[str, Any]) -> None:
    from edgekd.quantize.lint import LintReport

    record = LintReport((19, 20), (9, 9), (0, 0), ("Softmax", "Mul+Add"), ()).to_json()
    assert lint_lines(record) == [
        ("convolutions INT8", "19/20", False),
        ("adds INT8", "9/9", True),
        ("linear layers INT8", "none in the graph", True),
        ("float islands", "Softmax, Mul+Add", False),
        ("problems", "none", True),
    ]
    shown = text(render({**report, "lint": {"onnx-int8": record}}))
    assert "19/20 look here" in shown and "not all INT8" in shown
    assert "look here" not in text(render(report))


def test_without_export_the_lint_is_that_of_the_quantized_graph(tmp_path: Path) -> None:
    lint = collect(write_run(tmp_path, "quantize"))["lint"]
    assert list(lint) == ["student-qad"] and lint["student-qad"]["conv"] == [21, 21]


def test_terminal_tables(report: dict[str, Any]) -> None:
    rows = [*report["latency"], latency_row("engine-int8", 1, 0.5, measured=False)]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(ledger_table(report), latency_table({**report, "latency": rows}))
    shown = console.export_text()
    for figure in ("10,000 test images", "91.69 %", "91.13 – 92.22", "402 kB", "1.18 ms", "~0.500 ms", "estimate"):
        assert figure in shown


@pytest.mark.parametrize(
    ("form", "value", "shown"),
    [
        (units.ms, 0.0421, "0.042 ms"),
        (units.ms, 1.183, "1.18 ms"),
        (units.ms, 288.1, "288 ms"),
        (units.ms, None, units.DASH),
        (units.size, 402_113, "402 kB"),
        (units.size, 3_448_211, "3.45 MB"),
        (units.size, 12, "12 B"),
        (units.count, 272_474, "272 k"),
        (units.seconds, 59.96, "60.0 s"),
        (units.seconds, 1604.2, "26 min 44 s"),
        (units.seconds, 7300, "2 h 01 min"),
        (units.points, -0.0268, "−2.68 pt"),
        (units.percent, 0.91694, "91.69 %"),
    ],
)
def test_figures_have_units(form: Any, value: float | None, shown: str) -> None:
    assert form(value) == shown
